// The grid of answers: a row for each question, a column for each image; arrow keys move in it.

import { contents } from "./cells.js";
import { el } from "./dom.js";

const ID_SHOWN = 14;

export class Grid {
  /** Shows an `Asking` in `place`; `retry(row, column)` asks a cell again, `copy(text)` copies. */
  constructor(place, asking, { retry, copy }) {
    this.asking = asking;
    this.retry = retry;
    this.copy = copy;
    this.cells = asking.questions.map((question, row) => asking.pictures.map((picture, column) => this.cell(picture, row, column)));
    const rows = asking.questions.map((question, row) => this.row(question, this.cells[row]));
    this.element = el("div", { className: "grid", role: "grid", "aria-labelledby": "answers-title" }, this.heads(), ...rows);
    this.element.style.setProperty("--columns", asking.pictures.length);
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.element.addEventListener("focusin", (event) => this.rove(event.target.closest("[tabindex]")));
    place.replaceChildren(this.element);
    asking.questions.forEach((_, row) => asking.pictures.forEach((__, column) => this.show(row, column)));
    this.rove(this.cells[0][0]);
  }

  heads() {
    const corner = el("span", { role: "columnheader", className: "corner" }, el("span", { className: "unseen", textContent: this.asking.mode === "policies" ? "Policy" : "Question" }));
    return el("div", { role: "row", className: "heads" }, corner, ...this.asking.pictures.map((picture) => this.head(picture)));
  }

  head(picture) {
    const shown = { role: "columnheader", className: "column", tabIndex: -1 };
    if (!picture) return el("div", shown, el("span", { textContent: "Without an image" }));
    const words = el("span", {}, el("b", { textContent: picture.name }), el("code"));
    const copyId = () => picture.id && this.copy(picture.id);
    return el("div", { ...shown, onclick: copyId }, el("img", { src: picture.url, alt: "" }), words);
  }

  /** An image's id, which is known once the image is. */
  showId(column) {
    const picture = this.asking.pictures[column];
    const head = this.element.querySelectorAll(".column")[column];
    if (!picture || !picture.id || head.title) return;
    head.title = `Copy ${picture.id}`;
    head.querySelector("code").textContent = picture.id.length > ID_SHOWN ? `${picture.id.slice(0, ID_SHOWN)}…` : picture.id;
  }

  row(question, cells) {
    const name = question.name && question.name !== question.text ? question.name : null;
    const said = name ? [name, el("small", { textContent: question.text })] : [question.text];
    return el("div", { role: "row" }, el("div", { role: "rowheader", className: "asked", tabIndex: -1 }, ...said), ...cells);
  }

  cell(picture, row, column) {
    const thumb = picture && this.asking.pictures.length > 1 ? el("img", { className: "thumb", src: picture.url, alt: picture.name }) : null;
    return el("div", { role: "gridcell", tabIndex: -1, "data-row": row, "data-column": column }, thumb, el("div", { className: "body" }));
  }

  show(row, column) {
    const cell = this.asking.cells[row][column];
    const element = this.cells[row][column];
    element.className = `cell ${cell.state}`;
    this.showId(column);
    element.querySelector(".body").replaceChildren(...contents(cell, this.asking.questions[row], () => this.retry(row, column)));
  }

  /** The rows of focusable elements, headers included. */
  places() {
    return [...this.element.querySelectorAll("[role=row]")].map((row) => [...row.children].filter((each) => each.hasAttribute("tabindex")));
  }

  /** Makes one element the one that Tab comes to. */
  rove(target) {
    if (!target || target === this.active || target.tagName === "BUTTON") return;
    if (this.active) this.active.tabIndex = -1;
    target.tabIndex = 0;
    this.active = target;
  }

  key(event) {
    const element = event.target;
    if ((event.key === "Enter" || event.key === " ") && element !== this.element && element.tagName !== "BUTTON") this.press(element, event);
    else this.move(event);
  }

  press(element, event) {
    if (event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (element.classList.contains("failed") || element.classList.contains("stopped")) {
      this.retry(Number(element.dataset.row), Number(element.dataset.column));
    } else if (element.onclick) element.onclick();
  }

  move(event) {
    const rows = this.places();
    const row = rows.findIndex((each) => each.includes(event.target));
    if (row < 0) return;
    // The first row lacks the corner.
    const column = rows[row].indexOf(event.target) + (row === 0 ? 1 : 0);
    const last = this.asking.pictures.length;
    const all = event.ctrlKey || event.metaKey;
    const goal = {
      ArrowDown: [row + 1, column], ArrowUp: [row - 1, column], ArrowRight: [row, column + 1], ArrowLeft: [row, column - 1],
      Home: [all ? 1 : row, 0], End: [all ? rows.length - 1 : row, last],
    }[event.key];
    if (!goal) return;
    event.preventDefault();
    const next = (rows[goal[0]] || [])[goal[1] - (goal[0] === 0 ? 1 : 0)];
    if (next) next.focus();
  }
}
