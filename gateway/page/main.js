// The page at /: what the user does, and who does it.

import { json, onTokenNeeded, setToken } from "./api.js";
import { Asking } from "./asking.js";
import { by, count, el, percent, plural, seconds, tabs } from "./dom.js";
import { Grid } from "./grid.js";
import { Images } from "./images.js";
import { Live } from "./live.js";
import { kept, policiesOf, policyOf, questionsOf } from "./questions.js";
import { copy, dialog } from "./take.js";

const TELL_EVERY_MS = 3000;
const images = new Images(by("tray"), by("drop"), plan);
const openDialog = dialog();
let mode = "questions";
let served = [];
let asking = null;
let told = 0;

// What is asked.

function questions() {
  if (mode === "questions") return questionsOf(by("questions").value);
  const boxes = [...by("served").querySelectorAll("input")];
  return [...served.filter((_, place) => boxes[place].checked), ...policiesOf(by("policies").value)];
}

function plan() {
  const asked = questions().length;
  const what = mode === "policies" ? plural(asked, "policy", "policies") : plural(asked, "question");
  by("plan").textContent = images.all.length ? `${plural(images.all.length, "image")} × ${what}` : `${what}, no image`;
}

const showTab = tabs(document.querySelector(".ask .tabs"), (tab) => {
  mode = tab.id.replace("tab-", "");
  for (const name of ["questions", "policies"]) by(`panel-${name}`).hidden = name !== mode;
  by("longest").hidden = mode === "policies";
  localStorage.setItem("lookonce.mode", mode);
  plan();
});

async function loadPolicies() {
  const listed = await json("/v1/policies").catch(() => ({ data: [] }));
  served = (listed.data || []).map(policyOf);
  const boxes = served.map(({ name, text }) => el("label", { title: text }, el("input", { type: "checkbox", checked: true, onchange: plan }), name));
  by("served").append(...boxes);
  by("served").hidden = !served.length;
  plan();
}

// Asking.

function complain(text) {
  by("problem").textContent = text || "";
  by("problem").hidden = !text;
}

async function ask() {
  const asked = questions();
  if (!asked.length) return complain(mode === "policies" ? "Write a policy first." : "Write a question first.");
  if (asking && asking.running) return undefined;
  complain();
  asking = new Asking(mode, asked, [...images.all], Number(by("tokens").value) || 64, images);
  const grid = new Grid(by("scroll"), asking, { retry, copy: copyAndTell });
  images.release();
  asking.changed = (row, column) => {
    grid.show(row, column);
    progress();
  };
  by("answers").hidden = false;
  tell(`Asking ${plural(asking.all.length, "question")}.`);
  return work(asking.run());
}

async function retry(row, column) {
  await work(asking.retry(row, column));
}

/** Shows that something is in work while it is. */
async function work(promise) {
  const mine = asking;
  busy(true);
  try {
    await promise;
  } finally {
    if (mine === asking) {
      busy(asking.running);
      progress();
    }
  }
}

function busy(isBusy) {
  by("ask").disabled = isBusy;
  by("stop").hidden = !isBusy;
}

function progress() {
  const ended = asking.all.filter((cell) => !["waiting", "streaming"].includes(cell.state));
  const failures = ended.filter((cell) => cell.state !== "done").length;
  const usages = ended.filter((cell) => cell.answer).map((cell) => cell.answer.usage);
  const sum = (pick) => usages.reduce((total, usage) => total + pick(usage), 0);
  const prompt = sum((usage) => usage.prompt_tokens);
  const words = [
    ended.length < asking.all.length ? `${count(ended.length)} of ${plural(asking.all.length, "answer")}` : `${plural(usages.length, "answer")}`,
    asking.seconds ? `in ${seconds(asking.seconds)}` : null,
  ].filter(Boolean).join(" ");
  const reused = prompt ? `${percent(sum((usage) => usage.prompt_tokens_details.cached_tokens) / prompt)} of ${count(prompt)} prompt tokens reused` : null;
  by("progress").textContent = [words, failures ? `${count(failures)} failed` : null, reused].filter(Boolean).join(" · ");
  if (!asking.running || performance.now() - told > TELL_EVERY_MS) tell(by("progress").textContent);
}

function tell(text) {
  by("told").textContent = text;
  told = performance.now();
}

async function copyAndTell(text) {
  tell((await copy(text)) ? `Copied ${text}.` : text);
}

// What the user does.

function take(files) {
  const left = images.add(files);
  complain(left ? `${plural(left, "file")} left out: not an image.` : "");
}

function listen() {
  by("form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  by("stop").addEventListener("click", () => asking.stop());
  by("take").addEventListener("click", () => openDialog(asking));
  by("file").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    by("file").click();
  });
  by("file").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = "";
  });
  for (const field of ["questions", "policies"]) {
    kept(by(field), field);
    by(field).addEventListener("input", plan);
  }
  kept(by("tokens"), "tokens");
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || by("dialog").open) return;
    event.preventDefault();
    by("form").requestSubmit();
  });
  document.addEventListener("paste", (event) => event.clipboardData.files.length && take(event.clipboardData.files));
  listenToDrops();
}

function listenToDrops() {
  const over = (isOver) => by("drop").classList.toggle("over", isOver);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || over(false));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  });
}

function listenForTokens() {
  onTokenNeeded((isWrong) => {
    const wasHidden = by("token-form").hidden;
    by("token-form").hidden = false;
    by("token-form").querySelector("label").textContent = isWrong ? "This gateway does not know the token" : "This gateway asks for a token";
    if (wasHidden) by("token").focus();
  });
  by("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    by("token-form").hidden = true;
    setToken(by("token").value.trim());
    by("token").value = "";
    images.sendFailed();
    loadPolicies();
  });
}

listenForTokens();
listen();
showTab(by(`tab-${localStorage.getItem("lookonce.mode") === "policies" ? "policies" : "questions"}`));
loadPolicies();
new Live();
