// The images of the page: sent to the gateway as soon as they are there, so that they are known when a question comes.

import { call, Problem } from "./api.js";
import { el, plural, seconds } from "./dom.js";

/** Images sent at the same time. */
const AT_ONCE = 3;

/** @typedef {{file: File, name: string, url: string, state: "looking"|"ready"|"failed", id: ?string, sending: ?Promise,
 *   facts: ?object, seconds: number, problem: string, stop: AbortController, place: HTMLElement}} Picture */

export class Images {
  /** `tray` is the list that shows them; its last item is where more are dropped. */
  constructor(tray, drop, changed) {
    this.all = [];
    this.queue = [];
    this.sending = 0;
    this.removed = [];
    this.tray = tray;
    this.drop = drop;
    this.changed = changed;
  }

  /** Takes the images among some files; says what it did not take. */
  add(files) {
    const taken = [...files].filter((file) => file.type.startsWith("image/"));
    for (const file of taken) {
      const picture = {
        file, name: file.name || "pasted image", url: URL.createObjectURL(file), state: "looking", id: null, facts: null,
        seconds: 0, problem: "", stop: new AbortController(), place: el("li"),
      };
      this.all.push(picture);
      this.tray.insertBefore(picture.place, this.drop);
      this.send(picture);
    }
    this.changed();
    return files.length - taken.length;
  }

  remove(picture) {
    picture.stop.abort();
    const place = this.all.indexOf(picture);
    this.all.splice(place, 1);
    this.removed.push(picture);
    picture.place.remove();
    this.changed();
    const next = this.all[place] || this.all[place - 1];
    (next ? next.place.querySelector(".remove") : this.drop.querySelector("input")).focus();
  }

  /** Frees what nobody shows any more: the images that were removed. */
  release() {
    for (const picture of this.removed.splice(0)) URL.revokeObjectURL(picture.url);
  }

  /** Sends an image, when its turn comes. Resolves when it is known or has failed; never throws. */
  send(picture) {
    picture.state = "looking";
    this.show(picture);
    picture.sending = new Promise((resolve) => this.queue.push([picture, resolve]));
    this.next();
    return picture.sending;
  }

  /** Sends those that failed once more, as with a token that was lacking. */
  sendFailed() {
    for (const picture of this.all) if (picture.state === "failed") this.send(picture);
  }

  async next() {
    if (this.sending >= AT_ONCE || !this.queue.length) return;
    const [picture, resolve] = this.queue.shift();
    this.sending += 1;
    await this.upload(picture);
    this.sending -= 1;
    resolve();
    this.next();
  }

  async upload(picture) {
    const began = performance.now();
    try {
      const headers = { "Content-Type": picture.file.type || "application/octet-stream" };
      const options = { method: "POST", headers, body: picture.file, signal: picture.stop.signal };
      picture.facts = await (await call("/v1/images", options)).json();
      picture.id = picture.facts.id;
      picture.seconds = (performance.now() - began) / 1000;
      picture.state = "ready";
    } catch (error) {
      picture.state = "failed";
      picture.problem = error instanceof Problem ? error.message : "Stopped.";
    }
    this.show(picture);
    this.changed();
  }

  show(picture) {
    const again = () => el("button", { type: "button", className: "again", textContent: "Try again", onclick: () => this.send(picture) });
    const told = { looking: "Looking …", ready: picture.facts ? factsOf(picture) : "", failed: picture.problem }[picture.state];
    picture.place.className = picture.state;
    picture.place.replaceChildren(
      el("span", { className: "tile" }, el("img", { src: picture.url, alt: picture.name, title: picture.id || picture.name })),
      el("button", {
        type: "button", className: "remove", textContent: "×", "aria-label": `Remove ${picture.name}`, onclick: () => this.remove(picture),
      }),
      el("span", { className: "fact", textContent: told }),
      ...(picture.state === "failed" ? [again()] : []),
    );
  }
}

function factsOf(picture) {
  const { cached, image_tokens: tokens } = picture.facts;
  return `${plural(tokens, "token")}, ${cached ? "known already" : `looked at in ${seconds(picture.seconds)}`}`;
}
