// The gateway's routes: the token, errors in words, and streams of events.

const TOKEN = "lookonce.token";
const waiting = new Set();

/** What went wrong, in words for people; `status` is 0 where nothing answered. */
export class Problem extends Error {
  constructor(message, { status = 0, code = null, retryAfter = 0 } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

export const token = () => sessionStorage.getItem(TOKEN);

/** Keeps the token for this tab, and tells those who wait for one. */
export function setToken(value) {
  if (value) sessionStorage.setItem(TOKEN, value);
  else sessionStorage.removeItem(TOKEN);
  window.dispatchEvent(new Event("lookonce:token"));
}

/** Calls back when the gateway asks for a token, and has none or a wrong one. */
export const onTokenNeeded = (callback) => waiting.add(callback);

/** The reply of a route, if it is a good one. Throws `Problem`, or AbortError where `signal` was aborted. */
export async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (token()) headers.Authorization = `Bearer ${token()}`;
  let reply;
  try {
    reply = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The gateway does not answer.");
  }
  if (reply.ok || (options.accept || []).includes(reply.status)) return reply;
  throw await problemOf(reply);
}

export const json = async (path, options) => (await call(path, options)).json();

async function problemOf(reply) {
  const error = (await reply.json().catch(() => ({}))).error || {};
  const retryAfter = Number(reply.headers.get("Retry-After")) || 0;
  const facts = { status: reply.status, code: error.code || null, retryAfter };
  if (reply.status === 401) {
    for (const callback of waiting) callback(Boolean(token()));
    return new Problem(token() ? "The gateway does not know this token." : "The gateway asks for a token.", facts);
  }
  return new Problem(sentence(error.message || `The gateway refused this (${reply.status}).`, retryAfter), facts);
}

/** A server's message as a sentence, with when to try again. */
export function sentence(message, retryAfter = 0) {
  const told = message.charAt(0).toUpperCase() + message.slice(1) + (/[.!?]$/.test(message) ? "" : ".");
  return retryAfter ? `${told} Try again in ${retryAfter} s.` : told;
}

/** The data of each server-sent event. A stream that ends without `[DONE]` throws. */
export async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      return { done: true };
    });
    if (done) throw new Problem("The gateway stopped in the middle of its answer.");
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error && !event.object) throw new Problem(sentence(event.error.message), { code: event.error.code });
      yield event;
    }
  }
}
