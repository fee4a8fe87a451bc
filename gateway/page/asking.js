// Asking: one request for each image with all the questions, a few images at a time, every event into its cell.

import { call, events, Problem, sentence } from "./api.js";
import { asked } from "./questions.js";

const AT_ONCE = 3;
const GONE = ["not_found", "image_not_found"];

/** @typedef {{state: "waiting"|"streaming"|"done"|"failed"|"stopped", text: string, answer: ?object, problem: string}} Cell */

/** Questions × images with a cell for each pair; `changed(row, column)` is called whenever one changes. */
export class Asking {
  constructor(mode, questions, pictures, maxTokens, images) {
    this.mode = mode;
    this.questions = questions;
    // One column without an image, where there is none.
    this.pictures = pictures.length ? pictures : [null];
    this.maxTokens = maxTokens;
    this.images = images;
    this.cells = questions.map(() => this.pictures.map(blank));
    this.stopping = new AbortController();
    this.changed = () => {};
    this.began = performance.now();
    this.seconds = 0;
  }

  get all() {
    return this.cells.flat();
  }

  get running() {
    return this.all.some((cell) => cell.state === "waiting" || cell.state === "streaming");
  }

  /** Asks everything; resolves when every cell has its end. */
  async run() {
    const columns = this.pictures.map((_, column) => column);
    const worker = async () => {
      while (columns.length) await this.column(columns.shift(), this.questions.map((_, row) => row));
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    this.seconds = (performance.now() - this.began) / 1000;
  }

  /** Asks one question again. */
  async retry(row, column) {
    if (this.stopping.signal.aborted) this.stopping = new AbortController();
    this.set(row, column, blank());
    await this.column(column, [row]);
  }

  stop() {
    this.stopping.abort();
  }

  set(row, column, changes) {
    Object.assign(this.cells[row][column], changes);
    this.changed(row, column);
  }

  async column(column, rows) {
    try {
      if (await this.ask(column, rows)) await this.lookAgain(column, rows);
    } catch (error) {
      const stopped = error.name === "AbortError";
      const change = stopped ? { state: "stopped", problem: "Stopped." } : { state: "failed", problem: error.message };
      for (const row of rows) if (["waiting", "streaming"].includes(this.cells[row][column].state)) this.set(row, column, change);
      if (!stopped && !(error instanceof Problem)) throw error;
    }
  }

  /** The store forgets images in time: this one is sent once more, and its questions are asked once more. */
  async lookAgain(column, rows) {
    const picture = this.pictures[column];
    await this.images.send(picture);
    if (picture.state !== "ready") throw new Problem(picture.problem);
    for (const row of rows) this.set(row, column, blank());
    await this.ask(column, rows);
  }

  /** Asks some rows of a column. @returns {Promise<boolean>} whether the image turned out to be forgotten. */
  async ask(column, rows) {
    const picture = this.pictures[column];
    if (picture) await known(picture, this.stopping.signal);
    this.stopping.signal.throwIfAborted();
    const body = { ...bodyOf(rows.map((row) => this.questions[row]), picture ? picture.id : null, this.maxTokens), stream: true };
    const headers = { "Content-Type": "application/json" };
    const options = { method: "POST", headers, body: JSON.stringify(body), signal: this.stopping.signal };
    try {
      for await (const event of events(await call("/v1/answers", options))) {
        if (event.error && picture && GONE.includes(event.error.code)) return true;
        this.take(event, rows, column);
      }
    } catch (error) {
      if (picture && GONE.includes(error.code)) return true;
      throw error;
    }
    return false;
  }

  take(event, rows, column) {
    const row = rows[event.index];
    if (event.object === "answers.delta") {
      this.set(row, column, { state: "streaming", text: this.cells[row][column].text + event.delta });
    } else if (event.object === "answers.answer" && event.error) {
      this.set(row, column, { state: "failed", problem: sentence(event.error.message) });
    } else if (event.object === "answers.answer") {
      this.set(row, column, { state: "done", text: event.text, answer: event });
    }
  }
}

const blank = () => ({ state: "waiting", text: "", answer: null, problem: "" });

/** Waits until an image is known to the gateway. */
async function known(picture, signal) {
  signal.throwIfAborted();
  const stopped = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
  await Promise.race([picture.sending, stopped]);
  if (picture.state !== "ready") throw new Problem(picture.problem);
}

/** What is sent to /v1/answers. */
export function bodyOf(questions, imageId, maxTokens) {
  return { images: imageId ? [`image:${imageId}`] : [], questions: questions.map(asked), max_tokens: maxTokens, temperature: 0 };
}
