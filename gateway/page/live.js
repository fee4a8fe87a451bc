// What the split saves, as the gateway tells it: asked every second while the page can be seen.

import { json } from "./api.js";
import { bar, by, bytes, count, el, percent, plural, setShare } from "./dom.js";

const EVERY_MS = 1000;
// Where requests are rationed, watching must not use the ration up.
const RATIONED_MS = 15000;
const READY_EVERY = 5;
const SAMPLES = 60;
const STORES = { redis: "Redis", rediss: "Redis over TLS", unix: "Redis by socket", memory: "vision worker" };
const SVG = "http://www.w3.org/2000/svg";

export class Live {
  constructor() {
    this.samples = [];
    this.before = null;
    this.every = EVERY_MS;
    this.turn = 0;
    this.timer = null;
    this.values = {};
    this.bars = [];
    this.build();
    document.addEventListener("visibilitychange", () => this.wake());
    window.addEventListener("lookonce:token", () => this.wake());
    this.wake();
  }

  build() {
    const rows = { avoided: "Encodings avoided", answered: "Questions answered", work: "In work", prefixes: "Prefix memory", store: "Store" };
    for (const [name, label] of Object.entries(rows)) {
      this.values[name] = el("dd", { textContent: "–" });
      by("figures").append(el("div", {}, el("dt", { textContent: label }), this.values[name]));
    }
    this.memory = bar(0);
    this.values.prefixes.parentElement.append(this.memory);
    for (let place = 0; place < SAMPLES; place += 1) this.bars.push(["computed", "reused"].map((kind) => this.column(kind, place)));
  }

  column(kind, place) {
    const made = document.createElementNS(SVG, "rect");
    const facts = { class: kind, x: 2 * place + 0.25, width: 1.5, y: 32, height: 0 };
    for (const [name, value] of Object.entries(facts)) made.setAttribute(name, value);
    by("spark").append(made);
    return made;
  }

  /** Asks at once, and again and again while the page can be seen. */
  wake() {
    clearTimeout(this.timer);
    if (document.visibilityState === "visible") this.poll();
  }

  async poll() {
    clearTimeout(this.timer);
    let wait = this.every;
    try {
      if (this.turn % READY_EVERY === 0) await this.readiness();
      this.turn += 1;
      this.show(await json("/v1/stats"));
    } catch (error) {
      // Without a token there is nothing to see; with one it goes on.
      if (error.status === 401) return this.state("unready", "a token is needed");
      if (error.status === 429) this.every = RATIONED_MS;
      else this.state("unready", "the gateway does not answer");
      this.turn = 0;
      wait = Math.max(this.every, 1000 * (error.retryAfter || 0));
    }
    clearTimeout(this.timer);
    if (document.visibilityState === "visible") this.timer = setTimeout(() => this.poll(), wait);
  }

  async readiness() {
    const ready = await json("/ready", { accept: [503] });
    if (!this.model && ready.status !== "unready") this.model = (await json("/v1/models")).data[0].id;
    const lacking = (ready.missing || []).map((half) => `no ${half} worker`);
    const words = [this.model, ...(lacking.length ? lacking : [ready.status])].filter(Boolean).join(" · ");
    this.state(ready.status, words);
  }

  state(kind, words) {
    by("state").className = `state ${kind}`;
    const place = by("state").querySelector(".words");
    if (place.textContent !== words) place.textContent = words;
  }

  show(stats) {
    const { images, tokens, questions, prefixes, store } = stats;
    by("rate").textContent = tokens.prompt ? percent(tokens.reused / tokens.prompt) : "–";
    this.put("avoided", count(images.avoided), ` of ${count(images.asked)}`);
    this.put("answered", count(questions.answered), questions.failed ? `, ${count(questions.failed)} failed` : "");
    this.put("work", questions.running ? plural(questions.running, "question") : "nothing", questions.waiting ? `, ${count(questions.waiting)} waiting` : "");
    this.put("prefixes", bytes(prefixes.bytes_used), ` of ${bytes(prefixes.bytes_budget)}`);
    setShare(this.memory, prefixes.bytes_used / prefixes.bytes_budget);
    this.put("store", store.kinds.map((kind) => STORES[kind] || kind).join(", ") || "none", store.healthy ? "" : ", not answering", !store.healthy);
    this.sample(tokens);
  }

  put(name, value, more, isBad = false) {
    this.values[name].replaceChildren(value, el("small", { textContent: more }));
    this.values[name].classList.toggle("bad", isBad);
  }

  sample(tokens) {
    const before = this.before || tokens;
    // A worker that began anew counts from 0 again.
    const grown = (name) => Math.max(0, tokens[name] - before[name]);
    this.before = tokens;
    this.samples = [...this.samples, { reused: grown("reused"), computed: grown("computed") }].slice(-SAMPLES);
    const most = Math.max(1, ...this.samples.map((each) => each.reused + each.computed));
    const first = SAMPLES - this.samples.length;
    this.samples.forEach((each, place) => this.draw(this.bars[first + place], each, 31 / most));
  }

  draw([computed, reused], sample, scale) {
    const heights = [sample.computed * scale, sample.reused * scale];
    computed.setAttribute("height", heights[0]);
    computed.setAttribute("y", 32 - heights[0]);
    reused.setAttribute("height", heights[1]);
    reused.setAttribute("y", 32 - heights[0] - heights[1]);
  }
}
