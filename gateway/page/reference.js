// The page at /docs: every route of /openapi.json with what it takes and what it replies.

import { json } from "./api.js";
import { by, el } from "./dom.js";

/** Schemas are shown inside each other this deep. */
const DEEPEST = 4;
/** A limit from here on says nothing but how wide a field is on the wire. */
const WIDTH = 2 ** 32 - 1;
let schemas = {};

const code = (text, className) => el("code", { textContent: text, className });
const named = (ref) => ref.split("/").pop();
const resolve = (schema) => (schema && schema.$ref ? schemas[named(schema.$ref)] : schema);

/** A schema's type in a few words: `text`, `list of QuestionBody`, `"hit" or "miss"`. */
function typeOf(schema) {
  if (!schema || !Object.keys(schema).length) return "anything";
  if (schema.$ref) return named(schema.$ref);
  const variants = schema.anyOf || schema.oneOf;
  if (variants) return [...new Set(variants.map(typeOf))].join(" or ");
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  if (schema.format === "binary") return "bytes";
  return { string: "text", boolean: "true or false", integer: "integer", number: "number", null: "null" }[schema.type] || schema.type || "anything";
}

function limitsOf(schema) {
  const all = [schema, ...(schema.anyOf || [])];
  const words = { minimum: "≥", exclusiveMinimum: ">", maximum: "≤", minItems: "items ≥", maxItems: "items ≤", minLength: "characters ≥" };
  const said = ([name, sign]) => all.filter((each) => each[name] !== undefined && each[name] < WIDTH).map((each) => `${sign} ${each[name]}`);
  return Object.entries(words).flatMap(said);
}

/** The objects with fields that a schema holds, directly, as variants or in a list. */
function objectsOf(schema) {
  if (!schema) return [];
  if (schema.$ref) return resolve(schema).properties ? [named(schema.$ref)] : objectsOf(resolve(schema));
  return [...(schema.anyOf || schema.oneOf || []), schema.items].filter(Boolean).flatMap(objectsOf);
}

/** A text in which `these` are code. */
function prose(text, tag = "div") {
  return el(tag, {}, ...text.split("`").map((part, place) => (place % 2 ? code(part) : part)));
}

/** A schema's fields, those first that must be there; `isTaken` for what clients send, where that is to be told. */
function fields(schema, isTaken, depth = 0) {
  const required = isTaken ? schema.required || [] : [];
  const listed = Object.entries(schema.properties || {}).sort(([one], [other]) => required.includes(other) - required.includes(one));
  const rows = listed.map(([name, field]) => {
    const type = typeOf(field).replace(/ or null$/, isTaken ? "" : " or null");
    const facts = [el("span", { className: "type", textContent: type }), ...limitsOf(field).map((limit) => `, ${limit}`)];
    const told = field.description ? prose(field.description) : null;
    const inner = depth < DEEPEST ? [...new Set(objectsOf(field))].map((each) => inside(each, isTaken, depth + 1)) : [];
    const must = required.includes(name) ? el("span", { className: "must", textContent: "required" }) : null;
    return el("div", {}, el("dt", {}, code(name), must), el("dd", {}, ...facts, told, ...inner));
  });
  return el("dl", { className: "fields" }, ...rows);
}

/** A named schema, folded; made when it is opened, since schemas may hold themselves. */
function inside(name, isTaken, depth) {
  const made = el("details", {}, el("summary", { textContent: name }));
  made.addEventListener("toggle", () => made.children.length === 1 && made.append(fields(schemas[name], isTaken, depth)));
  return made;
}

function body(title, note, schema, isTaken = false) {
  const found = resolve(schema);
  const head = el("h4", {}, title, " ", el("small", { textContent: note }));
  if (found && found.properties) return [head, fields(found, isTaken)];
  const names = objectsOf(schema);
  return names.length ? [head, ...names.map((name) => inside(name, isTaken, 0))] : [head];
}

function operation(path, method, facts) {
  const made = el("article", { id: facts.operationId });
  made.append(el("h3", {}, el("span", { className: "method", textContent: method.toUpperCase() }), code(path)));
  if (facts.description) made.append(prose(facts.description, "p"));
  const parameters = (facts.parameters || []).map((each) => [each.name, { ...each.schema, description: each.description }]);
  if (parameters.length) made.append(...body("In the path", "", { properties: Object.fromEntries(parameters), required: parameters.map(([name]) => name) }, true));
  for (const [type, content] of Object.entries((facts.requestBody || { content: {} }).content)) made.append(...body("Takes", type, content.schema, true));
  for (const [status, reply] of Object.entries(facts.responses)) {
    if (status === "default") continue;
    for (const [type, content] of Object.entries(reply.content || {})) made.append(...body(`Replies ${status}`, type, content.schema));
  }
  made.append(...body("On failure", "an error object", { $ref: "#/components/schemas/ErrorBody" }).slice(0, 1), inside("ErrorBody", false, 0));
  return made;
}

async function show() {
  const openapi = await json("/openapi.json");
  schemas = openapi.components.schemas;
  const groups = new Map();
  for (const [path, methods] of Object.entries(openapi.paths)) {
    for (const [method, facts] of Object.entries(methods)) {
      const tag = (facts.tags || ["other"])[0];
      groups.set(tag, [...(groups.get(tag) || []), [path, method, facts]]);
    }
  }
  by("routes").replaceChildren();
  for (const [tag, operations] of groups) {
    by("nav").append(el("h2", { textContent: tag }));
    for (const [path, method, facts] of operations) {
      const words = [el("span", { className: "method", textContent: method.toUpperCase() }), code(path)];
      by("nav").append(el("a", { href: `#${facts.operationId}` }, ...words));
      by("routes").append(operation(path, method, facts));
    }
  }
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

show().catch((error) => {
  const said = error.status === 401 ? [error.message, " Type it on ", el("a", { href: "/", textContent: "the page" }), ", in this tab, and come back."] : [error.message];
  by("routes").replaceChildren(el("p", { role: "alert" }, ...said));
});
