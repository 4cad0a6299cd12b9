// The live page: a conversation with a model of this server, and the player fed by the running engine.
//
// ask      sends a prompt to /v1 and reads the answer as it is streamed
// follow   reads the recording of the engine from /live and gives it to the player (player.js)
//
// No framework and no request to any other server. Everything that a user or a model wrote becomes textContent.

import { Player, Run } from "./player.js";

const $ = id => document.getElementById(id);
const BACKOFF = [500, 1000, 2000, 5000]; // milliseconds until the next try to connect
const CROWD = [
  "Once upon a time there was a", "The little fox went", "In a big forest lived", "One morning the king",
  "The old sailor told", "Deep in the sea a", "A girl found a", "The dragon was so",
];
const HELLO = {
  chat: ["Tell me a story about a fox and the moon.", "Tell me a story about a brave little boat.", "Who lives in the forest?"],
  continue: ["Once upon a time there was a little fox who", "The old sailor opened the box and", "Deep in the forest, a small light"],
};

const state = {
  key: "", // the API key, if the server asks for one
  models: [], // [{name, chat, num_engines}]
  mode: "chat",
  turns: [], // of a chat: [{role, content}]; of a text: [{role, content}] whose contents follow one another
  crowds: new Set(), // the AbortControllers of the requests whose answers are not shown
  asking: null, // the AbortController of the answer that is being streamed
  following: null, // the AbortController of the engine's feed
};

// ------------------------------------------------------------------------------------------------------------ Requests

/** An error whose message is for the reader of the page. */
class Refused extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

function headers(more = {}) {
  return state.key ? { ...more, Authorization: `Bearer ${state.key}` } : more;
}

/** Send a request to this server. Raise Refused, with what the server said, for any status but 200. */
async function send(path, options = {}) {
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), { cache: "no-store", ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  let said = "";
  try {
    const body = await response.json();
    said = body.error?.message ?? body.detail ?? "";
  } catch {} // an answer that is not JSON says nothing that is worth showing
  if (typeof said !== "string" || !said) said = `The server answered with status ${response.status}.`;
  const wait = response.headers.get("Retry-After");
  if (response.status === 401) $("key").hidden = false;
  throw new Refused(response.status === 429 && wait ? `${said} Try again in ${wait} s.` : said, response.status);
}

/** Yield the data of each Server-Sent Event of a response. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", lines = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const part of parts) {
        const line = part.replace(/\r$/, "");
        if (line.startsWith("data:")) lines.push(line.slice(line[5] === " " ? 6 : 5));
        if (line !== "" || !lines.length) continue;
        yield lines.join("\n");
        lines = [];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// -------------------------------------------------------------------------------------------------------- Conversation

function made(tag, className, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

function put(node) {
  const log = $("log"), low = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  log.append(node);
  if (low) log.scrollTop = log.scrollHeight;
  return node;
}

/** Yield the parts of an answer to `asked`, {messages} or {prompt}: {text}, {reason} and {usage}. */
async function* answer(asked, signal) {
  const path = asked.messages ? "v1/chat/completions" : "v1/completions";
  const settings = { model: $("model").value, stream: true, stream_options: { include_usage: true } };
  const numbers = { max_tokens: Number($("max-tokens").value), temperature: Number($("temperature").value) };
  const body = JSON.stringify({ ...settings, ...numbers, ...asked });
  const response = await send(path, { method: "POST", signal, headers: { "Content-Type": "application/json" }, body });
  let ended = false;
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data), choice = chunk.choices?.[0];
    if (chunk.error) throw new Refused(chunk.error.message ?? "The answer ended with an error.");
    if (choice) yield { text: choice.delta?.content ?? choice.text ?? "", reason: choice.finish_reason };
    ended ||= Boolean(choice?.finish_reason);
    if (chunk.usage) yield { text: "", usage: chunk.usage };
  }
  if (!ended) throw new Refused("The connection ended in the middle of the answer.");
}

/** Add what the user wrote, and show the model's answer as it comes. */
async function ask(text) {
  const { mode, turns } = state, began = performance.now();
  if (mode === "continue") turns.push({ role: "user", content: text });
  else turns.push({ role: "user", content: text.trim() });
  const asked = mode === "chat" ? { messages: [...turns] } : { prompt: turns.map(turn => turn.content).join("") };
  $("log").querySelector(".hello")?.remove();
  const place = shown(mode, text);
  const reply = { role: "assistant", content: "" };
  turns.push(reply);
  const abort = (state.asking = new AbortController());
  buttons();
  place.classList.add("busy");
  let first = 0, tokens = 0, reason = null;
  try {
    for await (const part of answer(asked, abort.signal)) {
      if (part.text) first ||= performance.now();
      reply.content += part.text;
      grow(place, part.text);
      reason = part.reason ?? reason;
      tokens = part.usage?.completion_tokens ?? tokens;
    }
    put(made("p", "meta", summary(tokens, reason, began, first, performance.now())));
  } catch (error) {
    if (abort.signal.aborted) put(made("p", "meta", "stopped"));
    else fail(error, turns, reply, place, text);
  } finally {
    place.classList.remove("busy");
    if (state.asking === abort) state.asking = null;
    buttons();
  }
}

/** Show what the user wrote; return the node for the answer. */
function shown(mode, text) {
  if (mode === "chat") {
    put(made("p", "said user", text.trim()));
    return put(made("p", "said assistant"));
  }
  const story = $("log").querySelector(".story") ?? put(made("p", "said story"));
  $("log").querySelectorAll(".meta, .error").forEach(node => node.remove());
  if (text) story.append(made("span", "given", text));
  const place = made("span", "made");
  story.append(place);
  return place;
}

function grow(place, text) {
  const log = $("log"), low = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  place.append(text); // a string becomes a text node
  if (low) log.scrollTop = log.scrollHeight;
}

function summary(tokens, reason, began, first, ended) {
  const parts = [];
  if (tokens) parts.push(`${tokens} token${tokens === 1 ? "" : "s"}`);
  if (tokens > 1 && ended > first) parts.push(`${Math.round(((tokens - 1) * 1e3) / (ended - first))} per second`);
  if (first) parts.push(`first after ${Math.round(first - began)} ms`);
  if (reason === "length") parts.push("cut off at the limit of tokens");
  return parts.join(" · ") || "an empty answer";
}

function alarm(error) {
  const node = made("p", "error", error instanceof Refused ? error.message : "The connection to the server was lost.");
  node.setAttribute("role", "alert");
  return node;
}

/** Say what went wrong. A prompt that got no answer goes back into the box. */
function fail(error, turns, reply, place, text) {
  put(alarm(error));
  if (reply.content) return;
  turns.splice(turns.indexOf(reply) - 1, 2);
  if (state.turns !== turns) return;
  if (state.mode === "continue") place.previousElementSibling?.remove();
  else place.previousElementSibling.remove();
  place.remove();
  if (!$("prompt").value) $("prompt").value = text;
}

function buttons() {
  $("send").hidden = Boolean(state.asking);
  $("stop").hidden = !state.asking && !state.crowds.size;
}

function clear() {
  state.asking?.abort();
  state.turns = [];
  const hello = made("div", "hello");
  hello.append(made("p", "", state.mode === "chat" ? "Ask the model something." : "Begin a text, and the model continues it."));
  for (const text of HELLO[state.mode]) {
    const button = made("button", "", text);
    button.type = "button";
    button.addEventListener("click", () => void ask(text));
    hello.append(button);
  }
  $("log").replaceChildren(hello);
}

function choose(mode) {
  const model = state.models.find(one => one.name === $("model").value);
  state.mode = model?.chat ? mode : "continue";
  $("chat").hidden = !model?.chat;
  for (const name of ["chat", "continue"]) $(name).setAttribute("aria-pressed", String(state.mode === name));
  $("prompt").placeholder = state.mode === "chat" ? "Write a message" : "Write the beginning of a text";
  $("send").textContent = state.mode === "chat" ? "Send" : "Continue";
  clear();
}

/** Send eight more prompts in one request. Their texts are seen in the player only; Stop ends them too. */
async function crowd() {
  const abort = new AbortController();
  state.crowds.add(abort);
  buttons();
  try {
    for await (const _ of answer({ prompt: CROWD }, abort.signal));
  } catch (error) {
    if (!abort.signal.aborted) put(alarm(error));
  }
  state.crowds.delete(abort);
  buttons();
}

// -------------------------------------------------------------------------------------------------------------- Engine

let player = null;

function status(words, kind) {
  $("status").textContent = words;
  $("status").className = `status ${kind}`;
}

/** Follow the chosen engine until `state.following` is aborted; connect again whenever the connection ends. */
async function follow() {
  state.following?.abort();
  const abort = (state.following = new AbortController());
  if (document.hidden) return; // a browser has few connections for all of its tabs
  for (let failures = 0; !abort.signal.aborted; failures++) {
    try {
      const path = `live/${$("model").value.split("/").map(encodeURIComponent).join("/")}?engine=${$("replica").value || 0}`;
      for await (const data of events(await send(path, { signal: abort.signal }))) {
        failures = 0;
        show(JSON.parse(data));
      }
    } catch (error) {
      if (abort.signal.aborted) return;
      $("engine-note").textContent = error instanceof Refused ? error.message : "The connection was lost.";
      if (error.status === 401) return status("needs the API key", "lost");
    }
    if (abort.signal.aborted) return;
    status("reconnecting", "lost");
    await new Promise(done => setTimeout(done, BACKOFF[Math.min(failures, BACKOFF.length - 1)]));
  }
}

/** Give a piece of the recording to the player. A whole one takes the place of what it has. */
function show({ whole, same, ...piece }) {
  status("live", "on");
  if (!whole) return void player.append(piece);
  const run = new Run();
  run.live = true;
  run.append(piece);
  $("engine-note").hidden = true;
  if (player && same) player.replace(run);
  else {
    player?.destroy();
    player = new Player($("engine"), run, { panels: ["meters", "memory", "text", "tape"], readable: true });
  }
}

// --------------------------------------------------------------------------------------------------------------- Start

async function start() {
  try {
    const about = await (await send("live")).json();
    $("key").hidden = true;
    state.models = about.models;
    $("privacy").textContent = about.notice;
    $("model").replaceChildren(...about.models.map(model => new Option(model.name, model.name)));
    pick();
  } catch (error) {
    $("engine-note").textContent = error.message;
    status(error.status === 401 ? "needs the API key" : "not connected", "lost");
    if (error.status !== 401) setTimeout(start, BACKOFF.at(-1));
  }
}

/** Turn to the model that is chosen. */
function pick() {
  const model = state.models.find(one => one.name === $("model").value), count = model?.num_engines ?? 1;
  $("replica").replaceChildren(...Array.from({ length: count }, (_, i) => new Option(`${i + 1} of ${count}`, i)));
  $("replicas").hidden = count < 2;
  player?.destroy();
  player = null;
  choose("chat");
  void follow();
}

$("ask").addEventListener("submit", event => {
  event.preventDefault();
  const box = $("prompt"), text = box.value;
  if (state.asking || (!text.trim() && !(state.mode === "continue" && state.turns.length))) return;
  box.value = "";
  void ask(text);
});
$("prompt").addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
});
$("stop").addEventListener("click", () => {
  state.asking?.abort();
  for (const abort of state.crowds) abort.abort();
});
$("key").addEventListener("submit", event => {
  event.preventDefault();
  state.key = $("key-value").value.trim();
  $("key").hidden = true;
  void start();
});
$("chat").addEventListener("click", () => choose("chat"));
$("continue").addEventListener("click", () => choose("continue"));
$("clear").addEventListener("click", clear);
$("crowd").addEventListener("click", () => void crowd());
$("model").addEventListener("change", pick);
$("replica").addEventListener("change", () => void follow());
document.addEventListener("visibilitychange", () => state.models.length && void follow());
$("theme").addEventListener("click", () => {
  const next = { "": "light", light: "dark", dark: "" }[document.documentElement.style.colorScheme];
  document.documentElement.style.colorScheme = next;
});
void start();
