// Taking the answers along: as CSV or JSON, or as the request that made them, for curl and Python.

import { token } from "./api.js";
import { bodyOf } from "./asking.js";
import { by, el, tabs } from "./dom.js";
import { asked, verdict } from "./questions.js";

const FORMS = { curl: curl, Python: python, CSV: csv, JSON: jsonText };

/** Text to the clipboard. False where the browser does not allow it, as over plain HTTP from another host. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Sets the dialog up; the result opens it for an `Asking`. */
export function dialog() {
  let asking = null;
  const all = Object.keys(FORMS).map((name) => el("button", { type: "button", role: "tab", textContent: name, "aria-controls": "text" }));
  by("forms").append(...all);
  const select = tabs(by("forms"), (tab) => {
    by("text").textContent = asking ? FORMS[tab.textContent](asking) : "";
    by("copied").textContent = "";
  });
  by("close").addEventListener("click", () => by("dialog").close());
  by("copy").addEventListener("click", async () => {
    const done = await copy(by("text").textContent);
    if (!done) getSelection().selectAllChildren(by("text"));
    by("copied").textContent = done ? "Copied." : "Selected: copy it with Ctrl+C.";
  });
  return (shown) => {
    asking = shown;
    select(all.find((tab) => tab.getAttribute("aria-selected") === "true") || all[0]);
    by("dialog").showModal();
  };
}

const ids = (asking) => asking.pictures.filter((picture) => picture && picture.id).map((picture) => picture.id);
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** JSON in one line, with room to read it. */
function neat(value) {
  if (Array.isArray(value)) return `[${value.map(neat).join(", ")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${neat(each)}`).join(", ")}}`;
}

/** JSON with a line for each field, and for each question. */
function spread(body) {
  const fields = Object.entries(body).map(([name, value]) => {
    const said = name === "questions" ? `[\n    ${value.map(neat).join(",\n    ")}\n  ]` : neat(value);
    return `  ${JSON.stringify(name)}: ${said}`;
  });
  return `{\n${fields.join(",\n")}\n}`;
}

/** The request for curl, once for each image. */
export function curl(asking) {
  const [first, ...others] = ids(asking);
  const indent = others.length ? "  " : "";
  const image = others.length ? "IMAGE" : first || null;
  const body = quoted(spread(bodyOf(asking.questions, image, asking.maxTokens)));
  const parts = [`curl -sS ${location.origin}/v1/answers`, "-H 'Content-Type: application/json'"];
  if (token()) parts.push('-H "Authorization: Bearer $LOOKONCE_TOKEN"');
  parts.push(`-d ${body.replace("image:IMAGE", "image:'\"$image\"'")}`);
  const one = indent + parts.join(` \\\n${indent}  `);
  return others.length ? `for image in \\\n  ${[first, ...others].join(" \\\n  ")}\ndo\n${one}\n  echo\ndone\n` : `${one}\n`;
}

/** The request for Python, which needs nothing but Python. */
export function python(asking) {
  const listed = (items) => `[\n${items.map((item) => `    ${neat(item)},\n`).join("")}]`;
  const found = ids(asking);
  const header = token() ? '"Content-Type": "application/json", "Authorization": f"Bearer {os.environ[\'LOOKONCE_TOKEN\']}"' : '"Content-Type": "application/json"';
  return `import json${token() ? "\nimport os" : ""}
import urllib.request

images = ${found.length ? listed(found.map((id) => [`image:${id}`])) : "[[]]"}
questions = ${listed(asking.questions.map(asked))}

for image in images:
    body = {"images": image, "questions": questions, "max_tokens": ${asking.maxTokens}, "temperature": 0}
    headers = {${header}}
    request = urllib.request.Request("${location.origin}/v1/answers", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as reply:
        for question, answer in zip(questions, json.load(reply)["answers"]):
            print(*image, question["text"], answer["text"], sep="\\t")
`;
}

/** Every cell as one flat record. */
function records(asking) {
  return asking.questions.flatMap((question, row) => asking.pictures.map((picture, column) => record(question, picture, asking.cells[row][column])));
}

function record(question, picture, cell) {
  const { answer } = cell;
  const found = answer && answer.choices ? verdict(question, answer.choices) : null;
  return {
    image: picture ? picture.name : null,
    image_id: picture ? picture.id : null,
    policy: question.name || null,
    question: question.text,
    answer: answer ? answer.text : null,
    flagged: found ? found.isFlagged : null,
    scores: answer && answer.choices ? Object.fromEntries(answer.choices.map((choice) => [choice.text, choice.probability])) : null,
    finish_reason: answer ? answer.finish_reason : null,
    time_s: answer ? answer.lookonce.time_s : null,
    prompt_tokens: answer ? answer.usage.prompt_tokens : null,
    reused_tokens: answer ? answer.usage.prompt_tokens_details.cached_tokens : null,
    error: cell.problem || null,
  };
}

export function jsonText(asking) {
  return `${JSON.stringify(records(asking), null, 2)}\n`;
}

/** RFC 4180, with a line for each cell. */
export function csv(asking) {
  const all = records(asking);
  const field = (value) => {
    const text = value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [Object.keys(all[0]), ...all.map((each) => Object.values(each).map(field))];
  return lines.map((line) => `${line.join(",")}\r\n`).join("");
}
