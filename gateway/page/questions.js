// What is asked: lines of text as questions or policies, and the policies that the gateway has.

const LABELS = /^(.*\S)\s*\[([^[\]]+)\]$/;
const POLICY = /^([^:]{1,60}):\s+(\S.*)$/;
const YES_NO = ["yes", "no"];
export const THRESHOLD = 0.5;

/** @typedef {{text: string, choices?: string[], name?: string, flagged?: string[], threshold?: number}} Question */

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/** A line without the `[a, b]` at its end, and these labels where there are two or more. */
export function labelled(line) {
  const found = line.match(LABELS);
  const labels = found ? [...new Set(found[2].split(",").map((label) => label.trim()).filter(Boolean))] : [];
  return labels.length > 1 ? { text: found[1], choices: labels } : { text: line };
}

/** @returns {Question[]} */
export const questionsOf = (text) => lines(text).map(labelled);

/** Policies typed as `name: question [labels]`. Where the labels are yes and no, a yes is what they look for. */
export function policiesOf(text) {
  return lines(text).map((line) => {
    const { text: said, choices = YES_NO } = labelled(line);
    const [, name, question] = said.match(POLICY) || [null, said, said];
    return { name, text: question, choices, flagged: choices.includes("yes") ? ["yes"] : [], threshold: THRESHOLD };
  });
}

/** A policy as GET /v1/policies lists it. */
export function policyOf(listed) {
  const choices = listed.labels && listed.labels.length ? listed.labels : YES_NO;
  const { name, question: text, flagged = [], threshold = THRESHOLD } = listed;
  return { name, text, choices, flagged, threshold };
}

/** How likely a policy's flagged labels are together, and whether that is enough. */
export function verdict(question, choices) {
  const flagged = question.flagged || [];
  if (!flagged.length) return null;
  const probability = choices.filter((choice) => flagged.includes(choice.text)).reduce((sum, choice) => sum + choice.probability, 0);
  return { probability, isFlagged: probability >= question.threshold };
}

/** The fields of a question that the gateway takes. */
export const asked = ({ text, choices }) => (choices ? { text, choices } : { text });

/** A text field whose value outlives a reload; nothing else of the page does. */
export function kept(field, name) {
  const key = `lookonce.${name}`;
  const before = localStorage.getItem(key);
  if (before !== null) field.value = before;
  field.addEventListener("input", () => localStorage.setItem(key, field.value));
}
