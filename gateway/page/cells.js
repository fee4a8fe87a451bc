// One answer as it is shown: its text or its scores, its time, and how much of its prompt was reused.

import { bar, count, el, percent, seconds, setShare } from "./dom.js";
import { verdict } from "./questions.js";

/** The children of a cell's element. */
export function contents(cell, question, retry) {
  if (cell.state === "waiting") return [el("p", { className: "said", textContent: "…" })];
  if (cell.state === "failed" || cell.state === "stopped") return failed(cell, retry);
  const shown = cell.answer && cell.answer.choices ? scores(question, cell.answer.choices) : el("p", { className: "said", textContent: cell.text });
  return cell.answer ? [shown, ...facts(cell.answer)] : [shown];
}

function failed(cell, retry) {
  const again = el("button", { type: "button", className: "quiet again", tabIndex: -1, textContent: "Try again", onclick: retry });
  return [el("p", { className: "said", textContent: cell.text ? `${cell.text} – ${cell.problem}` : cell.problem }), again];
}

function facts(answer) {
  const { prompt_tokens: prompt, prompt_tokens_details: details } = answer.usage;
  const reused = details.cached_tokens;
  const said = el("p", { className: "facts" }, el("span", { className: "sum", textContent: seconds(answer.lookonce.time_s) }));
  said.append(el("span", { className: "sum", textContent: `${count(reused)} of ${count(prompt)} tokens reused` }));
  if (answer.finish_reason === "length") said.append(el("span", { textContent: "cut at the limit" }));
  said.title = `First token after ${seconds(answer.lookonce.time_to_first_token_s)}`;
  return [said, bar(reused / prompt)];
}

function scores(question, choices) {
  const found = verdict(question, choices);
  if (found && question.choices.length === 2) {
    const label = question.flagged.join(", ");
    const kind = found.isFlagged ? "best flagged" : "clear";
    return el("div", { className: "scores" }, score(label, found.probability, kind, question.threshold, found.isFlagged ? "flagged" : "clear"));
  }
  const best = Math.max(...choices.map((choice) => choice.probability));
  const kind = (choice) => {
    if (choice.probability !== best) return "";
    return found && found.isFlagged && question.flagged.includes(choice.text) ? "best flagged" : "best";
  };
  return el("div", { className: "scores" }, ...choices.map((choice) => score(choice.text, choice.probability, kind(choice))));
}

function score(label, probability, kind, threshold, verdictWord) {
  const filled = el("span", { className: "score", "aria-hidden": "true" }, el("i"));
  setShare(filled, probability);
  if (threshold !== undefined) {
    filled.dataset.threshold = threshold;
    filled.style.setProperty("--threshold", threshold);
  }
  const unseen = verdictWord ? el("span", { className: "unseen", textContent: `, ${verdictWord}` }) : null;
  const title = threshold === undefined ? undefined : `Flagged from ${percent(threshold)}`;
  return el("div", { className: kind, title }, el("b", { textContent: label }), filled, el("span", {}, shareOf(probability), unseen));
}

/** A probability is never quite 0 or 1, and not shown as that. */
function shareOf(probability) {
  if (probability > 0.9995) return "> 99.9 %";
  if (probability < 0.0005) return "< 0.1 %";
  return probability > 0.995 || probability < 0.005 ? `${(100 * probability).toFixed(1)} %` : percent(probability);
}
