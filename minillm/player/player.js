// The player: draws a recording of the engine (recording.py has the format) on canvases, live or to replay.
//
//   mount(element, recording, options) -> player     for a page; player.append(piece) adds what is new
//   export default { initialize, render }            for anywidget, in a notebook
//
// Run      what happened: requests, steps and blocks, with the state after any step
// Tape, Memory, Text, Meters    the panels: each draws one state on its canvas
// Player   the playhead, the controls, the pointer, and the frames
//
// No framework and no request to any server. Text goes into canvases and textContent only: a prompt is never markup.

export const VERSION = 1;
const KINDS = ["prefill", "decode", "padding"];
const ORIGINS = ["sampled", "accepted", "bonus", "corrected"];

// minillm/viz/style.py: one colour for each meaning, in every chapter.
const COLORS = {
  prefill: "#E69F00", decode: "#0072B2", hit: "#56B4E9", padding: "#BBBBBB",
  accepted: "#009E73", rejected: "#D55E00", bonus: "#CC79A7", corrected: "#0072B2",
};
// What was drafted has a mark too, so that no colour is needed: marks are drawn by `mark`.
const MARKS = { draft: "dotted", accepted: "under", rejected: "strike", corrected: "wave", bonus: "double" };
// Paul Tol's "muted": a colour for each request, so that blocks can be told apart.
const REQUEST_COLORS = ["#CC6677", "#44AA99", "#DDCC77", "#6A5ACD", "#AA4499", "#117733", "#999933", "#882255"];
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif";
const STEPS_PER_SECOND = 12; // at speed 1

// ---------------------------------------------------------------------------------------------------------------- Run

/** Return the last entry of `list` whose step is at most `step`; entries are in order of their steps. */
function upTo(list, step) {
  return list[countUpTo(list, step) - 1];
}

/** Return how many entries of `list` have a step of at most `step`. */
function countUpTo(list, step) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle].step <= step) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** A word as it is shown: what means the start or the end of a text is a sign, and so is the end of a line. */
function spell(word) {
  return /^<\|?\/?[\w-]+\|?>$/.test(word) ? "◦" : word.replace(/\n/g, "⏎");
}

/** The events of a recording, arranged so that the state after any step is found without a replay. */
export class Run {
  constructor() {
    this.numEvents = 0;
    this.words = [];
    this.settings = {};
    this.requests = [];
    this.steps = [];
    this.start = null; // the memory before the first step, if the recording begins with a snapshot
    this.firstStep = 0; // the engine's steps before the first one here
    this.blocks = []; // for each block, who wrote it: [{step, request, index}]
    this.known = []; // for each block, whether its prefix can be found: [{step, known}]
    this.notes = []; // resets: [{step, text}]
    this.present = new Set(["prefill", "decode"]); // meanings that the legend explains
    this.live = false;
    this._numbers = new Map(); // requests by their numbers in the recording; `number` is the place in `requests`
    this._next = 0; // the next number
    this._output = []; // tokens of the step that is not known yet
    this._ends = []; // tokens of each request after its last step
    this._cached = { step: -2 };
  }

  /** Add a piece. Return false if something before it is missing; then nothing is added. */
  append(piece) {
    if (piece.version !== VERSION) throw new Error(`recording version ${piece.version}: this player reads ${VERSION}`);
    const begins = this.numEvents === 0;
    if (begins && piece.events[0]?.[0] === "snapshot") this.numEvents = piece.start;
    if (piece.start > this.numEvents || piece.first_word > this.words.length) return false;
    if (begins) this.settings = piece.settings;
    this.words.push(...piece.words.slice(this.words.length - piece.first_word).map(spell));
    for (const event of piece.events.slice(this.numEvents - piece.start)) {
      this[`_${event[0]}`](...event.slice(1));
      this.numEvents++;
    }
    return true;
  }

  _add(time, id, words, prompt = words.length) {
    const tokens = words.map((word, index) => ({ word, index, origin: index < prompt ? "prompt" : "sampled", step: -1 }));
    const request = {
      number: this.requests.length, id, time, step: this.steps.length, prompt, color: REQUEST_COLORS[this._next % REQUEST_COLORS.length],
      tokens, shown: [...tokens], // `shown` has rejected drafts too, each before the token in its place
      parts: [], tables: [], preempted: [], finish: null,
    };
    this._numbers.set(this._next++, request);
    this.requests.push(request);
    this._ends.push(0);
    return request;
  }

  /** The recording begins here, with the state that the steps before it have left. */
  _snapshot(time, step, next, [total = 0, free = 0, cached = 0], known, requests) {
    if (this.start) return; // it is for readers that begin with it
    const blockSize = this.settings.block_size;
    this.start = { total, free, cached, blockSize, copied: [], drafts: 0, accepted: 0 };
    this.firstStep = step;
    for (const [number, id, prompt, computed, blocks, words, reason] of requests) {
      this._next = number;
      const request = this._add(time, id, words, prompt);
      this._ends[request.number] = computed;
      if (reason) request.finish = { time, reason, step: -1 };
      if (!blocks.length) continue;
      // What it had computed is a part before the first step.
      request.parts.push({ step: -1, kind: "running", computed, tokens: 0, hits: 0, drafts: [], accepted: 0, blockSize });
      request.tables.push({ step: -1, blocks });
      blocks.forEach((block, index) => (this.blocks[block] ??= []).push({ step: -1, request, index }));
    }
    this._next = next;
    for (const block of known) this._know(block, -1, true);
  }

  _token(number, word, origin) {
    const request = this._numbers.get(number), index = request.tokens.length;
    const token = { word, index, origin: ORIGINS[origin], step: this.steps.length };
    request.tokens.push(token);
    this._output.push({ request, token });
    if (origin) this.present.add(token.origin);
  }

  _finish(time, number, reason) {
    this._numbers.get(number).finish = { time, reason, step: this.steps.length };
  }

  _reset(time, reason, settings) {
    const step = this.steps.length;
    for (const request of this.requests) {
      if (upTo(request.tables, step)?.blocks.length) request.tables.push({ step, blocks: [] });
      if (!request.finish && request.parts.length) request.preempted.push({ step, moved: true });
      this._ends[request.number] = 0;
    }
    this.known.forEach(history => history.push({ step, known: false }));
    this.settings = { ...this.settings, ...settings };
    this.notes.push({ step, text: reason === "rebuilt" ? "rebuilt" : reason || "reset" });
  }

  _step(start, end, waiting, running, blocks, decodes, parts, tables, drafts, preempted, copied, published) {
    const step = this.steps.length;
    const [total = 0, free = 0, cached = 0] = blocks;
    const record = {
      step, start, end, waiting, running, total, free, cached, copied, preempted, fresh: new Set(),
      tokens: { prefill: 0, decode: 0, padding: 0 }, batch: 0, output: this._output.length,
      budget: this.settings.max_num_batched_tokens, blockSize: this.settings.block_size,
    };
    for (const number of preempted) {
      this._numbers.get(number).preempted.push({ step });
      this._numbers.get(number).tables.push({ step, blocks: [] });
      this.present.add("preempted");
    }
    const all = decodes.map(number => [number, 1, this._ends[this._numbers.get(number).number], 1, 0]);
    for (const [number, kind, computed, tokens, hits] of all.concat(parts)) {
      const request = this._numbers.get(number), name = KINDS[kind];
      request.parts.push({ step, kind: name, computed, tokens, hits, drafts: [], accepted: 0, blockSize: record.blockSize });
      this._ends[request.number] = computed + tokens;
      record.tokens[name] += tokens;
      record.batch++;
      this.present.add(name);
      if (hits) this.present.add("hit");
    }
    for (const [number, ...words] of drafts) this._numbers.get(number).parts.at(-1).drafts = words;
    this._show();
    record.drafts = this._sum("drafts", drafts, part => part.drafts.length);
    record.accepted = this._sum("accepted", drafts, part => part.accepted);
    for (const [number, kept, ...added] of tables) this._table(record, this._numbers.get(number), kept, added);
    for (const block of published) this._know(block, step, true);
    this.steps.push(record);
    record.rate = this._rate(step);
    this._cached = { step: -2 };
  }

  /** Show the tokens of the step, and the first draft that was rejected: those after it were not judged. */
  _show() {
    for (const { request, token } of this._output) {
      const part = request.parts.at(-1), draft = part?.drafts[part.accepted];
      if (draft !== undefined) this.present.add("draft");
      if (draft !== undefined && token.origin === "accepted") part.accepted++;
      if (draft !== undefined && token.origin === "corrected") {
        request.shown.push({ word: draft, index: Infinity, origin: "rejected", step: token.step });
        this.present.add("rejected");
      }
      request.shown.push(token);
    }
    this._output = [];
  }

  /** The sum over all steps so far, with this step's parts that have drafts. */
  _sum(name, drafts, count) {
    return drafts.reduce((sum, [number]) => sum + count(this._numbers.get(number).parts.at(-1)), this.steps.at(-1)?.[name] ?? 0);
  }

  /** A request's table changed. Blocks that were given to it lose what they held; a prefix hit or a fork keeps it. */
  _table(record, request, kept, added) {
    const before = upTo(request.tables, record.step)?.blocks ?? [], step = record.step;
    const shared = before.length ? 0 : Math.floor((request.parts.at(-1)?.computed ?? 0) / record.blockSize);
    added.forEach((block, i) => {
      const index = kept + i;
      (this.blocks[block] ??= []).push({ step, request, index });
      if (index < shared || this._forked(record, request, block)) return;
      this._know(block, step, false);
      record.fresh.add(block);
    });
    request.tables.push({ step, blocks: [...before.slice(0, kept), ...added] });
  }

  /** Whether another running request held the block before this step: then the request is its fork. */
  _forked(record, request, block) {
    return (this.blocks[block] ?? []).some(({ request: other }) =>
      other !== request && !other.finish && upTo(other.preempted, record.step)?.step !== record.step &&
      this.table(other, record.step - 1).includes(block));
  }

  _know(block, step, known) {
    (this.known[block] ??= []).push({ step, known });
  }

  /** Output tokens per second over the last ten steps. */
  _rate(step) {
    const first = Math.max(0, step - 9);
    let tokens = 0;
    for (let i = first; i <= step; i++) tokens += this.steps[i].output;
    const seconds = (this.steps[step].end - this.steps[first].start) / 1e6;
    return seconds > 0 ? tokens / seconds : 0;
  }

  /** The block table of a request in a step; [] if it holds nothing. */
  table(request, step) {
    const blocks = upTo(request.tables, step)?.blocks ?? [];
    const part = upTo(request.parts, step);
    const gone = request.finish && request.finish.step <= step && part?.step !== step;
    return gone ? [] : blocks;
  }

  /** Tokens of a request with keys and values after a step; those of rejected drafts do not count. */
  length(request, step) {
    const part = upTo(request.parts, step);
    return part ? part.computed + part.tokens - this.rejected(part).length : 0;
  }

  /** The drafts of a part that were not accepted. Their keys and values stay until others are written over them. */
  rejected(part) {
    return part.drafts.slice(part.accepted);
  }

  /** The drafts that the next step verifies: they were proposed at the end of this one. */
  proposed(request, step) {
    const next = upTo(request.parts, step + 1);
    return next?.step === step + 1 ? next.drafts : [];
  }

  /** How many drafts of a request were verified up to a step, and how many were accepted. */
  drafted(request, step) {
    const parts = request.parts.slice(0, countUpTo(request.parts, step));
    return [parts.reduce((sum, part) => sum + part.drafts.length, 0), parts.reduce((sum, part) => sum + part.accepted, 0)];
  }

  /** What a request does in a step: its part, or "waiting", "preempted", "running", "finished" or "" before it came. */
  doing(request, step) {
    const part = upTo(request.parts, step), lost = upTo(request.preempted, step);
    if (request.finish && request.finish.step <= step && part?.step !== step) return "finished";
    if (part?.step === step) return part.kind;
    if (lost && lost.step >= (part?.step ?? -1)) return lost.moved ? "waiting" : "preempted";
    if (part) return "running";
    return request.step <= step + 1 ? "waiting" : "";
  }

  /** The tables, lengths and holders of all blocks in a step. */
  memory(step) {
    if (this._cached.step === step) return this._cached;
    const holders = new Map();
    for (const request of this.requests) {
      for (const [index, block] of this.table(request, step).entries()) {
        if (!holders.has(block)) holders.set(block, []);
        holders.get(block).push({ request, index });
      }
    }
    return (this._cached = { step, holders });
  }

  /** What a block holds in a step: whose tokens, from which to which; null if nothing was written. */
  content(block, step) {
    const holder = this.memory(step).holders.get(block)?.[0];
    const wrote = holder ?? upTo(this.blocks[block] ?? [], step);
    if (!wrote) return null;
    const size = this.at(step).blockSize, first = wrote.index * size;
    const last = holder ? Math.min(this.length(wrote.request, step), first + size) : first + size;
    return { request: wrote.request, first, last: Math.max(first, last) };
  }

  /** The pool after a step: before the first one it is the snapshot's, or else the first one's. */
  at(step) {
    return this.steps[step] ?? this.start ?? this.steps[0] ?? { total: 0, blockSize: this.settings.block_size, copied: [] };
  }

  isKnown(block, step) {
    return upTo(this.known[block] ?? [], step)?.known ?? false;
  }

  text(tokens) {
    return tokens.map(token => this.words[token.word]).join("");
  }

  /** The rejected drafts whose keys and values are in a block, in the step that verified them. */
  rejectedIn(block, step) {
    const holder = this.memory(step).holders.get(block)?.[0], part = holder && upTo(holder.request.parts, step);
    if (!part || part.step !== step || !part.drafts.length) return [];
    const size = part.blockSize, start = this.length(holder.request, step), first = holder.index * size;
    return this.rejected(part).slice(Math.max(0, first - start), Math.max(0, first + size - start));
  }

  /** How many tokens of a request are known after a step; those of its prompt have step -1. */
  numTokens(request, step) {
    return countUpTo(request.tokens, step);
  }
}

// ------------------------------------------------------------------------------------------------------------- Canvas

/** A canvas that is as sharp as the screen, with the pointer's events in CSS pixels. */
class Panel {
  constructor(player, name, label) {
    this.player = player;
    this.name = name;
    this.box = element("section", `mp-panel mp-${name}`);
    this.title = element("div", "mp-title");
    this.title.append(element("b", "", label), (this.note = element("span", "mp-note")));
    this.canvas = element("canvas", "");
    this.canvas.setAttribute("role", "img");
    this.box.append(this.title, this.canvas);
    this.ink = this.canvas.getContext("2d");
    this.key = "";
    this.width = this.height = 0;
    this.canvas.addEventListener("pointermove", event => this._point(event));
    this.canvas.addEventListener("pointerleave", () => player.point(null));
    this.canvas.addEventListener("pointerdown", event => {
      this._point(event);
      this.press?.(event);
    });
    this.canvas.addEventListener("wheel", event => this.scroll?.(event), { passive: false });
  }

  _point(event) {
    const x = event.offsetX, y = event.offsetY;
    this.player.point({ panel: this, x, y, ...(this.under(x, y) ?? {}) });
  }

  /** Draw everything again: the run is another one. */
  forget() {
    this.key = "";
  }

  /** Take a step of what moves by itself (rows that scroll); return whether it goes on. */
  move() {
    return false;
  }

  /** Draw if anything that shows has changed. */
  draw(view) {
    const width = Math.floor(this.box.clientWidth) - 2 * PADDING, height = this.wish(view, width);
    if (width <= 0) return;
    const key = [width, height, view.theme.name, this.state(view)].join();
    if (key === this.key) return;
    this.key = key;
    this.fit(this.canvas, width, height);
    [this.width, this.height] = [width, height];
    this.ink.clearRect(0, 0, width, height);
    this.paint(view, this.ink, width, height);
  }

  fit(canvas, width, height) {
    const scale = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      if (canvas.style) [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
    }
    canvas.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
  }
}

const PADDING = 10;

function font(ink, size, weight = "") {
  ink.font = `${weight} ${size}px ${FONT}`;
}

function clip(ink, text, width) {
  if (ink.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 0 && ink.measureText(text.slice(0, end) + "…").width > width) end--;
  return end ? text.slice(0, end) + "…" : "";
}

const fadedColors = new Map();

function faded(color, alpha) {
  const key = color + alpha;
  if (!fadedColors.has(key)) {
    const n = parseInt(color.slice(1), 16);
    fadedColors.set(key, `rgba(${n >> 16}, ${(n >> 8) & 255}, ${n & 255}, ${alpha})`);
  }
  return fadedColors.get(key);
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const shape = document.createElementNS(svg.namespaceURI, "path");
  svg.setAttribute("viewBox", "0 0 14 14");
  svg.setAttribute("aria-hidden", "true");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

const plural = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
const draftsInWords = (drafts, accepted) => `${plural(drafts, "draft")}, ${accepted.toLocaleString("en")} accepted`;
const milliseconds = us => (us / 1e3).toFixed(us < 1e4 ? 2 : us < 1e5 ? 1 : 0) + " ms";

/** Bring `panel.top` nearer to `wish`, which is cut to 0 … `most`; return whether it is not there yet. */
function slide(panel, view, wish, most, near) {
  const end = Math.max(0, Math.min(most, wish)), rest = end - panel.top;
  panel.top = view.calm || Math.abs(rest) < near ? end : panel.top + rest * 0.2;
  return panel.top !== end;
}

// --------------------------------------------------------------------------------------------------------------- Tape

/** Requests over time, a row for each: what each step computed for it, and when it waited. */
class Tape extends Panel {
  constructor(player) {
    super(player, "tape", "Requests over time");
    this.back = document.createElement("canvas");
    this.backKey = "";
    this.top = 0; // the first row that shows, a fraction while it moves
    this.auto = true; // whether the rows follow the playhead
  }

  rows(view) {
    return view.run.requests.length;
  }

  shown(view) {
    return Math.max(1, Math.min(this.rows(view), 24));
  }

  rowHeight(view) {
    return this.shown(view) <= 8 ? 20 : this.shown(view) <= 16 ? 16 : 13;
  }

  wish(view) {
    return this.shown(view) * this.rowHeight(view) + 20;
  }

  state(view) {
    return [view.position.toFixed(3), view.run.numEvents, view.axis, view.run.live, this.top.toFixed(2), view.focus?.number].join();
  }

  forget() {
    super.forget();
    this.backKey = "";
  }

  /** Bring the unfinished rows into view. */
  move(view) {
    const most = this.rows(view) - this.shown(view);
    return slide(this, view, this.auto ? view.firstOpen() - 2 : this.top, most, 0.02);
  }

  scroll(event) {
    const most = this.rows(this.player) - this.shown(this.player);
    const next = Math.max(0, Math.min(most, this.top + event.deltaY / 30));
    if (next === this.top) return;
    event.preventDefault();
    [this.top, this.auto] = [next, false];
    this.player.wake();
  }

  press(event) {
    if (event.offsetX < this.left) return this.player.pin(this.under(event.offsetX, event.offsetY)?.request);
    const seek = e => this.player.seek(Math.ceil(this.positionAt(e.offsetX)));
    seek(event);
    this.canvas.setPointerCapture(event.pointerId);
    const end = () => this.canvas.removeEventListener("pointermove", seek);
    this.canvas.addEventListener("pointermove", seek);
    this.canvas.addEventListener("pointerup", end, { once: true });
    this.canvas.addEventListener("pointercancel", end, { once: true });
  }

  under(x, y) {
    const view = this.player, row = Math.floor(y / this.rowHeight(view) + this.top);
    const request = y < this.height - 20 ? view.run.requests[row] : undefined;
    const step = Math.ceil(this.positionAt(x)) - 1;
    return { request, step: x >= this.left && step >= 0 && step < view.run.steps.length ? step : undefined };
  }

  tip({ request, step }) {
    const run = this.player.run, record = run.steps[step];
    if (!request || !record) return request ? [`request ${request.id}`] : [];
    const part = upTo(request.parts, step), lines = [`request ${request.id}, step ${step + 1}`];
    if (part?.step === step) {
      lines.push(`${part.kind}: ${plural(part.tokens, "token")} after ${part.computed}`);
      if (part.hits) lines.push(`${plural(part.hits, "token")} from the prefix cache`);
      if (part.drafts.length) lines.push(draftsInWords(part.drafts.length, part.accepted));
      if (part.kind === "padding") lines.push("computed for a request that has finished");
    } else lines.push(run.doing(request, step) || "not here yet");
    const blocks = run.table(request, step).length;
    if (blocks) lines.push(`holds ${plural(blocks, "block")}`);
    lines.push(`the step: ${milliseconds(record.end - record.start)}`);
    return lines;
  }

  /** Where a position (in steps) is: [0, 1] of the axis. */
  fraction(position) {
    const run = this.player.run;
    if (this.player.axis === "steps" || !run.steps.length) return position / this.span();
    return this._time(position) / Math.max(1, this._time(run.steps.length) * (run.live ? 1.1 : 1));
  }

  _time(position) {
    const steps = this.player.run.steps, zero = steps[0].start;
    const i = Math.min(Math.floor(position), steps.length - 1), step = steps[i];
    const until = steps[i + 1]?.start ?? step.end;
    return step.start - zero + Math.min(1, position - i) * (until - step.start);
  }

  /** Steps on the axis. A running engine's axis grows by half when it is full, so bars move rarely. */
  span() {
    const count = this.player.run.steps.length;
    let span = 30;
    while (span < count) span = Math.ceil(span * 1.5);
    return this.player.run.live ? span : Math.max(count, 1);
  }

  x(position) {
    return this.left + this.fraction(position) * (this.width - this.left - 6);
  }

  positionAt(x) {
    const count = this.player.run.steps.length;
    const wish = (x - this.left) / (this.width - this.left - 6);
    let low = 0, high = count;
    for (let i = 0; i < 24; i++) {
      const middle = (low + high) / 2;
      if (this.fraction(middle) < wish) low = middle;
      else high = middle;
    }
    return high;
  }

  paint(view, ink, width, height) {
    const scale = window.devicePixelRatio || 1, theme = view.theme;
    this.left = width < 480 ? 34 : 52;
    const key = [width, height, view.run.numEvents, view.run.live, view.axis, this.top.toFixed(2), theme.name, scale].join();
    if (key !== this.backKey) {
      this.backKey = key;
      this.fit(this.back, width, height);
      this._bars(view, this.back.getContext("2d"), width, height);
    }
    const rowHeight = this.rowHeight(view), bottom = height - 20, here = this.x(view.position);
    if (view.focus) {
      ink.fillStyle = theme.shade;
      ink.fillRect(0, (view.focus.number - this.top) * rowHeight, width, rowHeight);
    }
    ink.drawImage(this.back, 0, 0, width, height);
    ink.globalAlpha = 0.72; // what is still to come
    ink.fillStyle = theme.paper;
    ink.fillRect(here, 0, width - here, bottom);
    ink.globalAlpha = 1;
    ink.fillStyle = theme.ink;
    ink.fillRect(here - 0.75, 0, 1.5, bottom + 4);
    const counts = { finished: 0, waiting: 0, preempted: 0, "": 0 };
    for (const request of view.run.requests) {
      const doing = view.run.doing(request, view.step);
      counts[doing] = (counts[doing] ?? 0) + 1;
    }
    const here_ = view.run.requests.length - counts[""];
    const waiting = counts.waiting + counts.preempted;
    this.note.textContent = `${plural(here_ - waiting - counts.finished, "request")} running, ${waiting} waiting, ${counts.finished} finished`;
    this.canvas.setAttribute("aria-label", `Requests over time: ${this.note.textContent}`);
  }

  _bars(view, ink, width, height) {
    const { run, theme } = view, rowHeight = this.rowHeight(view), bottom = height - 20;
    ink.clearRect(0, 0, width, height);
    const perStep = (this.x(run.steps.length) - this.left) / Math.max(1, run.steps.length);
    ink.save();
    ink.beginPath();
    ink.rect(0, 0, width, bottom);
    ink.clip();
    const first = Math.floor(this.top), last = Math.min(run.requests.length, first + this.shown(view) + 1);
    for (let row = first; row < last; row++) {
      const request = run.requests[row], y = (row - this.top) * rowHeight;
      this._label(ink, theme, request, y, rowHeight);
      this._waits(ink, theme, run, request, y + rowHeight / 2);
      this._parts(ink, theme, request, y + 1.5, rowHeight - 3, perStep >= 5 ? 1 : 0);
      for (const { step, moved } of request.preempted) {
        if (!moved) this._cross(ink, theme, this.x(step + 0.5), y + rowHeight / 2);
      }
    }
    ink.restore();
    for (const note of run.notes) {
      ink.strokeStyle = theme.faint;
      ink.setLineDash([3, 3]);
      ink.strokeRect(this.x(note.step), 0, 0, bottom);
      ink.setLineDash([]);
    }
    this._axis(ink, view, width, bottom);
  }

  _label(ink, theme, request, y, rowHeight) {
    ink.fillStyle = request.color;
    ink.fillRect(0, y + 2, 4, rowHeight - 4);
    font(ink, Math.min(11, rowHeight - 2));
    ink.fillStyle = theme.ink;
    ink.textBaseline = "middle";
    ink.textAlign = "left";
    ink.fillText(clip(ink, request.id, this.left - 14), 9, y + rowHeight / 2 + 0.5);
  }

  _waits(ink, theme, run, request, y) {
    const count = run.steps.length, end = request.finish ? Math.min(request.finish.step + 1, count) : count;
    ink.fillStyle = theme.faint;
    ink.fillRect(this.x(Math.min(request.step, count)), y - 0.5, this.x(end) - this.x(Math.min(request.step, count)), 1);
  }

  /** One bar for each part, or for each stretch of equal parts where a step is too narrow for a gap. */
  _parts(ink, theme, request, y, height, gap) {
    const parts = request.parts;
    for (let i = 0; i < parts.length; ) {
      const part = parts[i], from = part.step;
      let until = from + 1;
      i++;
      if (from < 0) continue; // of a snapshot
      if (!gap && this._plain(part)) {
        while (i < parts.length && parts[i].step === until && parts[i].kind === part.kind && this._plain(parts[i])) {
          until++;
          i++;
        }
      }
      const x = this.x(from), width = Math.max(0.8, this.x(until) - x - gap);
      this._part(ink, request, part, x, y, width, height);
    }
  }

  _plain(part) {
    return !part.hits && !part.drafts.length;
  }

  /** A part's bar, its height divided between the tokens that were computed and those that were a prefix hit. */
  _part(ink, request, part, x, y, width, height) {
    if (part.drafts.length) {
      const rejected = part.drafts.length - part.accepted;
      const all = [[rejected, "rejected"], [part.accepted, "accepted"], [1, rejected ? "corrected" : "bonus"]];
      let below = y + height;
      for (const [share, color] of all.reverse()) {
        const high = (height * share) / (part.drafts.length + 1);
        ink.fillStyle = COLORS[color];
        ink.fillRect(x, (below -= high), width, high);
      }
      return;
    }
    ink.fillStyle = COLORS[part.kind];
    ink.fillRect(x, y, width, height);
    if (part.hits) {
      ink.fillStyle = COLORS.hit;
      ink.fillRect(x, y, Math.max(width, 2), (height * part.hits) / (part.hits + part.tokens));
    }
  }

  _cross(ink, theme, x, y) {
    ink.lineCap = "round";
    for (const [color, width] of [[theme.paper, 4.5], [theme.ink, 1.8]]) {
      ink.strokeStyle = color;
      ink.lineWidth = width;
      ink.beginPath();
      for (const side of [-1, 1]) {
        ink.moveTo(x - 3.5, y - 3.5 * side);
        ink.lineTo(x + 3.5, y + 3.5 * side);
      }
      ink.stroke();
    }
    ink.lineWidth = 1;
  }

  _axis(ink, view, width, bottom) {
    const steps = view.axis === "steps", count = view.run.steps.length;
    const end = steps ? this.span() : count ? this._time(count) * (view.run.live ? 1.1 : 1) / 1e3 : 1;
    const wish = end / Math.max(2, (width - this.left) / 90), power = 10 ** Math.floor(Math.log10(wish));
    const tick = [1, 2, 5, 10].map(n => n * power).find(n => n >= wish);
    ink.fillStyle = view.theme.faint;
    ink.fillRect(this.left, bottom, width - this.left - 6, 1);
    font(ink, 10.5);
    ink.textBaseline = "top";
    const step = steps ? Math.max(1, tick) : tick;
    for (let value = 0; value <= end; value += step) {
      const x = this.left + (value / end) * (width - this.left - 6);
      ink.fillRect(x, bottom, 1, 4);
      const last = value + step > end, unit = steps ? " steps" : " ms";
      const text = String(+value.toPrecision(6)) + (last ? unit : "");
      ink.textAlign = last && x > width - 70 ? "right" : "center";
      ink.fillText(text, last && x > width - 70 ? width - 2 : x, bottom + 7);
    }
  }
}

// ------------------------------------------------------------------------------------------------------------- Memory

/** The blocks of the cache, each with the words of its tokens; below, the block table of the request in focus. */
class Memory extends Panel {
  constructor(player) {
    super(player, "memory", "Memory");
    this.top = 0;
    this.auto = true; // whether a pool that is too large for the panel shows the blocks that are held
  }

  record(view) {
    return view.run.at(view.step);
  }

  /** The largest cells with which all blocks fit, at best; the words need room. */
  grid(view, width) {
    const { total, blockSize: size } = this.record(view), gap = 3;
    const shapes = [[Math.min(190, 40 + size * 9), 46], [Math.min(130, 30 + size * 7), 38], [88, 32], [54, 24], [34, 18], [22, 14], [14, 10]];
    for (const [least, high] of view.readable ? shapes.slice(0, 2) : shapes) {
      const columns = Math.max(1, Math.floor((width + gap) / (Math.min(least, width) + gap)));
      const rows = Math.ceil(total / columns), wide = (width + gap) / columns - gap;
      if (rows * (high + gap) <= MEMORY_HEIGHT || high === 10) return { total, columns, rows, wide, high, gap };
    }
    // Only a part of the pool shows, next to a map of the whole.
    const high = 38, room = width - MAP, columns = Math.max(1, Math.floor((room + gap) / (118 + gap)));
    return { total, columns, rows: Math.ceil(total / columns), wide: (room + gap) / columns - gap, high, gap, map: true };
  }

  /** Bring the blocks that are held into view or, if they are too many, the newest one. */
  move(view) {
    const held = [...view.run.memory(view.step).holders.keys()];
    if (!this.auto || !held.length || !this.width || !this.grid(view, this.width).map) return false;
    const { columns, rows, high, gap } = this.grid(view, this.width), area = this.height - 50;
    const place = block => Math.floor(block / columns) * (high + gap);
    const since = block => upTo(view.run.blocks[block], view.step).step;
    let first = place(Math.min(...held)), last = place(Math.max(...held)) + high + gap;
    if (last - first > area) {
      first = place(held.reduce((newest, block) => (since(block) >= since(newest) ? block : newest)));
      last = first + high + gap;
    }
    const wish = Math.max(Math.min(this.top, first), last - area);
    return slide(this, view, wish, rows * (high + gap) - area, 0.5);
  }

  wish(view, width) {
    if (!this.record(view).total) return 44;
    const { rows, high, gap } = this.grid(view, width);
    return Math.min(rows * (high + gap), MEMORY_HEIGHT) + 50;
  }

  state(view) {
    const copying = view.run.steps[view.step]?.copied.length && !view.calm ? Math.min(1, view.sinceStep).toFixed(2) : "";
    return [view.step, view.run.numEvents, view.focus?.number, view.block, copying, this.top.toFixed(1)].join();
  }

  scroll(event) {
    const { rows, high, gap } = this.grid(this.player, this.width), most = rows * (high + gap) - MEMORY_HEIGHT;
    const next = Math.max(0, Math.min(most, this.top + event.deltaY));
    if (next === this.top) return;
    event.preventDefault();
    [this.top, this.auto] = [next, false];
    this.player.wake();
  }

  press(event) {
    this.player.pin(this.under(event.offsetX, event.offsetY)?.request);
  }

  under(x, y) {
    const run = this.player.run;
    if (!this.record(this.player).total || y > this.height - 50) return null;
    const { total, columns, wide, high, gap } = this.grid(this.player, this.width);
    const column = Math.floor(x / (wide + gap)), row = Math.floor((y + this.top) / (high + gap));
    const block = row * columns + column;
    if (column >= columns || block >= total) return null;
    const holders = run.memory(this.player.step).holders.get(block) ?? [];
    return { block, request: holders[0]?.request };
  }

  tip({ block }) {
    if (block === undefined) return [];
    const { run, step } = this.player, holders = run.memory(step).holders.get(block) ?? [];
    const lines = [`block ${block}: ${holders.length ? plural(holders.length, "reference") : "free"}`];
    const names = holders.map(({ request, index }) => `entry ${index} of request ${request.id}`);
    lines.push(...names.slice(0, 4), ...(names.length > 4 ? [`and ${names.length - 4} more`] : []));
    const content = run.content(block, step);
    if (run.isKnown(block, step)) lines.push(holders.length ? "its prefix can be found" : "kept for a prefix hit");
    const drafts = run.rejectedIn(block, step);
    if (drafts.length) lines.push(`${plural(drafts.length, "rejected draft")}: never published, and written over`);
    if (content && (holders.length || run.isKnown(block, step))) {
      lines.push(`“${run.text(content.request.tokens.slice(content.first, content.last)).trim()}”`);
    }
    return lines;
  }

  paint(view, ink, width, height) {
    const { run, theme, step } = view, { total, cached, copied } = this.record(view);
    if (!total) {
      font(ink, 12);
      ink.fillStyle = theme.muted;
      ink.textBaseline = "top";
      ink.textAlign = "left";
      ink.fillText(run.steps.length ? "This cache has no blocks." : "Nothing was computed yet.", 0, 6);
      this.note.textContent = "";
      return;
    }
    const grid = this.grid(view, width), { holders } = run.memory(step), area = height - 50;
    this.top = Math.max(0, Math.min(this.top, grid.rows * (grid.high + grid.gap) - area));
    ink.save();
    ink.beginPath();
    ink.rect(-1, 0, width + 2, area);
    ink.clip();
    for (let block = 0; block < total; block++) {
      const { x, y } = this.at(grid, block);
      if (y + grid.high >= 0 && y <= area) this._block(view, ink, grid, block, holders.get(block) ?? [], x, y);
    }
    if (step >= 0) this._copies(view, ink, grid, copied);
    ink.restore();
    if (grid.map) this._map(view, ink, grid, holders, width, area);
    this._table(view, ink, width, height - 46);
    const shared = [...holders.values()].filter(list => list.length > 1).length, kept = step < 0 && !run.start ? 0 : cached;
    this.note.textContent =
      `${holders.size} of ${total} blocks held` +
      (shared ? `, ${shared} shared` : "") + (kept ? `, ${kept} free but kept for hits` : "");
    this.canvas.setAttribute("aria-label", `Memory: ${this.note.textContent}`);
  }

  /** The whole pool as a strip: the blocks that are held, and a frame around those that show. */
  _map(view, ink, { total, rows, high, gap }, holders, width, area) {
    const left = width - MAP + 6, wide = MAP - 6, scale = area / total;
    ink.fillStyle = view.theme.cell;
    ink.fillRect(left, 0, wide, area);
    for (const [block, [{ request }]] of holders) {
      ink.fillStyle = request.color;
      ink.fillRect(left, Math.min(block * scale, area - 2), wide, Math.max(1.5, scale));
    }
    const share = area / (rows * (high + gap));
    ink.strokeStyle = view.theme.muted;
    ink.strokeRect(left + 0.5, Math.min(this.top * share, area - 7) + 0.5, wide - 1, Math.max(6, area * share));
  }

  at({ columns, wide, high, gap }, block) {
    return { x: (block % columns) * (wide + gap), y: Math.floor(block / columns) * (high + gap) - this.top };
  }

  _block(view, ink, { wide, high }, block, held, x, y) {
    const { run, theme, step } = view, known = run.isKnown(block, step);
    const focus = view.focus && held.find(one => one.request === view.focus);
    const dim = view.focus && run.table(view.focus, step).length > 0;
    const content = held.length || (known && wide >= 50) ? run.content(block, step) : null;
    const size = run.at(step).blockSize;
    ink.globalAlpha = dim && !focus ? 0.35 : 1;
    const filled = held.length ? Math.min(1, Math.max(0, (content.last - content.first) / size)) : 0;
    const drafts = held.length ? run.rejectedIn(block, step).length / size : 0;
    if (filled < 1) {
      ink.fillStyle = known && !held.length && wide < 50 ? theme.kept : theme.cell;
      ink.fillRect(x, y, wide, high);
    }
    if (held.length) {
      held.forEach(({ request }, i) => {
        ink.fillStyle = faded(request.color, wide < 50 ? 0.85 : theme.fill);
        ink.fillRect(x, y + (i * high) / held.length, wide * filled, high / held.length);
        if (wide < 50) return;
        ink.fillStyle = request.color;
        ink.fillRect(x, y + (i * high) / held.length, 4, high / held.length);
      });
      if (drafts) this._drafts(ink, x + wide * filled, y, wide * drafts, high);
    }
    if (known && !held.length && wide >= 50) {
      ink.strokeStyle = theme.faint;
      ink.setLineDash([2, 2]);
      ink.strokeRect(x + 0.5, y + 0.5, wide - 1, high - 1);
      ink.setLineDash([]);
    }
    if (wide >= 50) this._words(view, ink, block, held, content, x, y, wide, high);
    if (step >= 0 && run.steps[step].fresh.has(block)) {
      ink.strokeStyle = theme.ink;
      ink.lineWidth = 1;
      ink.strokeRect(x + 0.5, y + 0.5, wide - 1, high - 1);
    }
    ink.globalAlpha = 1;
    if (focus || view.block === block) {
      ink.strokeStyle = focus ? view.focus.color : theme.ink;
      ink.lineWidth = 2;
      ink.strokeRect(x, y, wide, high);
      ink.lineWidth = 1;
    }
  }

  /** The slots of rejected drafts: hatched, since what they hold is not part of any text. */
  _drafts(ink, x, y, wide, high) {
    ink.save();
    ink.beginPath();
    ink.rect(x, y, wide, high);
    ink.clip();
    ink.strokeStyle = COLORS.rejected;
    ink.beginPath();
    for (let left = x - high; left < x + wide; left += 5) {
      ink.moveTo(left, y + high);
      ink.lineTo(left + high, y);
    }
    ink.stroke();
    ink.restore();
  }

  /** The block's number, its reference count, and as many of its words as fit. */
  _words(view, ink, block, held, content, x, y, wide, high) {
    const { run, theme } = view, size = high >= 38 ? 10.5 : 9.5;
    font(ink, 9);
    ink.textBaseline = "top";
    ink.textAlign = "left";
    ink.fillStyle = theme.muted;
    ink.fillText(String(block), x + 7, y + 3);
    if (held.length > 1) {
      ink.textAlign = "right";
      ink.fillStyle = theme.ink;
      font(ink, 9.5, "bold");
      ink.fillText(`×${held.length}`, x + wide - 4, y + 2.5);
    }
    if (run.isKnown(block, view.step)) {
      ink.fillStyle = held.length ? theme.ink : theme.muted;
      ink.beginPath();
      ink.arc(x + wide - (held.length > 1 ? 24 : 7), y + 7, 2, 0, 7);
      ink.fill();
    }
    if (!content || high < 24) return;
    font(ink, size);
    ink.textAlign = "left";
    ink.fillStyle = held.length ? theme.ink : theme.muted;
    const lines = Math.floor((high - 13) / (size + 1.5)), text = run.text(content.request.tokens.slice(content.first, content.last));
    wrap(ink, text.replace(/\s+/g, " ").trim(), wide - 11, Math.max(1, lines)).forEach((line, i) => {
      ink.fillText(line, x + 7, y + 13 + i * (size + 1.5));
    });
  }

  /** An arrow and a glow for each copy on write; both fade. */
  _copies(view, ink, grid, copied) {
    const age = view.calm ? 0 : Math.min(1, view.sinceStep);
    for (const [i, [from, to]] of copied.entries()) {
      const a = this.at(grid, from), b = this.at(grid, to), right = (grid.wide * (i + 1)) / (copied.length + 1);
      const [x0, y0, x1, y1] = [a.x + right, a.y + grid.high, b.x + right, b.y + grid.high];
      ink.globalAlpha = 1 - 0.4 * age;
      ink.strokeStyle = ink.fillStyle = view.theme.ink;
      ink.lineWidth = 2;
      ink.strokeRect(b.x, b.y, grid.wide, grid.high);
      if (grid.wide >= 80) {
        font(ink, 9, "bold");
        ink.textAlign = "right";
        ink.fillText(`copy of ${from}`, b.x + grid.wide - 4, b.y + 3);
      }
      const bend = { x: (x0 + x1) / 2 + (y1 - y0) / 4, y: Math.max(y0, y1) + 26 + 14 * i };
      ink.beginPath();
      ink.moveTo(x0, y0);
      ink.quadraticCurveTo(bend.x, bend.y, x1, y1);
      ink.stroke();
      const angle = Math.atan2(y1 - bend.y, x1 - bend.x);
      ink.beginPath();
      ink.moveTo(x1 + 2 * Math.cos(angle), y1 + 2 * Math.sin(angle));
      for (const side of [-0.5, 0.5]) ink.lineTo(x1 - 9 * Math.cos(angle + side), y1 - 9 * Math.sin(angle + side));
      ink.fill();
      ink.globalAlpha = ink.lineWidth = 1;
    }
  }

  _table(view, ink, width, y) {
    const { run, theme, step, focus } = view;
    font(ink, 11);
    ink.textBaseline = "middle";
    ink.textAlign = "left";
    ink.fillStyle = theme.muted;
    if (!focus) return void ink.fillText("Point at a request or a block to see a block table.", 0, y + 10);
    const table = run.table(focus, step), length = table.length ? run.length(focus, step) : 0;
    ink.fillText(clip(ink, `Block table of request ${focus.id}: ${plural(length, "token")} in ${plural(table.length, "block")}`, width), 0, y + 8);
    const { holders } = run.memory(step);
    let x = 0;
    for (const [index, block] of table.entries()) {
      const text = String(block), wide = Math.max(22, ink.measureText(text).width + 10);
      if (x + wide > width - 16 && index < table.length - 1) {
        ink.fillStyle = theme.muted;
        ink.fillText("…", x + 2, y + 30);
        break;
      }
      ink.fillStyle = faded(focus.color, theme.fill);
      ink.fillRect(x, y + 20, wide, 20);
      ink.strokeStyle = focus.color;
      ink.lineWidth = holders.get(block).length > 1 ? 2 : 1;
      ink.strokeRect(x + 0.5, y + 20.5, wide - 1, 19);
      ink.lineWidth = 1;
      ink.fillStyle = theme.ink;
      ink.fillText(text, x + (wide - ink.measureText(text).width) / 2, y + 30.5);
      x += wide + 2;
    }
  }
}

const MEMORY_HEIGHT = 330;
const MAP = 16; // the width of the map, with its margin

/** Break `text` into at most `most` lines; the last one is clipped. */
function wrap(ink, text, width, most) {
  const lines = [], words = text.split(" ");
  let line = "";
  for (let i = 0; i < words.length; i++) {
    const longer = line ? `${line} ${words[i]}` : words[i];
    if (!line || ink.measureText(longer).width <= width) line = longer;
    else {
      lines.push(clip(ink, line, width));
      line = words[i];
    }
    if (lines.length === most - 1) {
      const rest = [line, ...words.slice(i + 1)].join(" ");
      return [...lines, clip(ink, rest, width)];
    }
  }
  return line ? [...lines, clip(ink, line, width)] : lines;
}

// --------------------------------------------------------------------------------------------------------------- Text

/** What each request says, each token coloured by how it came to be. */
class Text extends Panel {
  constructor(player) {
    super(player, "text", "Text");
    this.top = 0;
    this.auto = true;
    this.layouts = new Map();
    this.boxes = []; // where the pieces of text are, for the pointer
  }

  forget() {
    super.forget();
    this.layouts.clear();
  }

  numLines(view) {
    const count = view.run.requests.length;
    return count <= 2 ? 6 : count <= 4 ? 4 : count <= 8 ? 2 : 1;
  }

  rowHeight(view) {
    return this.numLines(view) * LINE + 7;
  }

  wish(view) {
    const memory = view.panels.find(panel => panel.name === "memory");
    const beside = memory && memory.box.offsetTop === this.box.offsetTop;
    const most = Math.max(140, beside && memory.height ? memory.height : 340);
    return beside ? most : Math.max(60, Math.min(most, view.run.requests.length * this.rowHeight(view)));
  }

  state(view) {
    return [view.step, view.run.numEvents, view.focus?.number, this.top.toFixed(1)].join();
  }

  move(view) {
    const wish = this.auto ? view.firstOpen() * this.rowHeight(view) : this.top;
    return slide(this, view, wish, this.most(view), 0.5);
  }

  most(view) {
    return Math.max(0, view.run.requests.length * this.rowHeight(view) - (this.height || 300));
  }

  scroll(event) {
    const next = Math.max(0, Math.min(this.most(this.player), this.top + event.deltaY));
    if (next === this.top) return;
    event.preventDefault();
    [this.top, this.auto] = [next, false];
    this.player.wake();
  }

  press(event) {
    this.player.pin(this.under(event.offsetX, event.offsetY)?.request);
  }

  under(x, y) {
    const request = this.player.run.requests[Math.floor((y + this.top) / this.rowHeight(this.player))];
    const box = this.boxes.find(box => x >= box.x && x < box.x + box.wide && y >= box.y && y < box.y + LINE);
    return { request, piece: box?.piece };
  }

  tip({ request, piece }) {
    if (!request) return [];
    const { run, step } = this.player, known = run.numTokens(request, step);
    if (MARKS[piece?.origin]) return this._story(run, request, piece);
    const lines = [`request ${request.id}: ${run.doing(request, step) || "not here yet"}`];
    lines.push(`${plural(request.prompt, "prompt token")}, ${plural(known - request.prompt, "output token")}`);
    const [drafts, accepted] = run.drafted(request, step);
    if (drafts) lines.push(draftsInWords(drafts, accepted));
    if (request.finish?.step <= step) lines.push(`finished: ${request.finish.reason}`);
    return lines;
  }

  /** What happened to a draft, or instead of it, and all drafts of its step. */
  _story(run, request, piece) {
    const part = upTo(request.parts, piece.step), quoted = word => `“${run.words[word].trim()}”`;
    const lines = [`${quoted(piece.word)}: ${MEANINGS[piece.origin]}`];
    if (piece.origin === "draft") return lines;
    lines.push(`step ${piece.step + 1}: ${draftsInWords(part.drafts.length, part.accepted)}`);
    lines.push(`drafts: ${part.drafts.map(quoted).join(" ")}`);
    return lines;
  }

  paint(view, ink, width, height) {
    const rowHeight = this.rowHeight(view), left = width < 420 ? 54 : 62;
    const first = Math.floor(this.top / rowHeight), last = Math.ceil((this.top + height) / rowHeight);
    this.boxes = [];
    for (const request of view.run.requests.slice(first, last)) {
      const y = request.number * rowHeight - this.top;
      if (view.focus === request) {
        ink.fillStyle = view.theme.shade;
        ink.fillRect(0, y, width, rowHeight - 2);
      }
      this._label(view, ink, request, y, rowHeight, left);
      ink.save();
      ink.beginPath();
      ink.rect(left, y, width - left, rowHeight - 3);
      ink.clip();
      this._words(view, ink, request, left, y + 2, width - left - 4);
      ink.restore();
    }
    let output = 0;
    for (const request of view.run.requests) output += view.run.numTokens(request, view.step) - request.prompt;
    const { drafts = 0, accepted = 0 } = view.run.steps[view.step] ?? {};
    this.note.textContent = plural(output, "output token") + (drafts ? `; ${draftsInWords(drafts, accepted)}` : "");
    this.canvas.setAttribute("aria-label", `Text of the requests: ${this.note.textContent}`);
  }

  _label(view, ink, request, y, rowHeight, left) {
    const doing = view.run.doing(request, view.step);
    ink.fillStyle = request.color;
    ink.fillRect(0, y + 2, 4, rowHeight - 6);
    font(ink, 11, "bold");
    ink.textBaseline = "top";
    ink.textAlign = "left";
    ink.fillStyle = view.theme.ink;
    ink.fillText(clip(ink, request.id, left - 24), 9, y + 4);
    ink.fillStyle = COLORS[doing] ?? view.theme.faint;
    ink.beginPath();
    ink.arc(left - 9, y + 10, 3.5, 0, 7);
    if (["prefill", "decode", "padding"].includes(doing)) ink.fill();
    else if (doing && doing !== "finished") {
      ink.strokeStyle = view.theme.muted;
      ink.stroke();
    }
    if (this.numLines(view) > 1) {
      font(ink, 9.5);
      ink.fillStyle = view.theme.muted;
      ink.fillText(clip(ink, doing, left - 12), 9, y + 19);
    }
  }

  /** Where each piece of a request's text is: it grows with the request, and starts again if the width changes. */
  layout(ink, run, request, width) {
    let made = this.layouts.get(request);
    if (!made || made.width !== width) this.layouts.set(request, (made = { width, places: [], line: 0, x: 0, word: 0 }));
    for (let i = made.places.length; i < request.shown.length; i++) {
      const text = run.words[request.shown[i].word], wide = ink.measureText(text).width;
      if (/^\s/.test(text)) made.word = i;
      if (made.x + wide > width && made.x > 0) {
        // The whole word goes to the next line, unless it began the line.
        const begin = made.places[made.word]?.x > 0 ? made.word : i;
        made.line++;
        made.x = 0;
        for (const place of made.places.slice(begin)) {
          [place.line, place.x] = [made.line, made.x];
          made.x += place.wide;
        }
      }
      made.places.push({ line: made.line, x: made.x, wide, text });
      made.x += wide;
    }
    return made.places;
  }

  _words(view, ink, request, left, y, width) {
    const { run, theme, step } = view, size = 12.5;
    font(ink, size);
    ink.textBaseline = "top";
    ink.textAlign = "left";
    const lines = this.numLines(view), places = this.layout(ink, run, request, lines === 1 ? Infinity : width);
    if (request.step > step + 1) return;
    const count = countUpTo(request.shown, step), end = places[count - 1];
    const cut = lines === 1 && end.x + end.wide > width, from = left + (cut ? 12 : 0);
    if (cut) left -= end.x + end.wide - width; // one line shows its end, in whole words
    const top = Math.max(0, end.line - lines + 1);
    const hits = request.parts.filter(part => part.hits && part.step <= step).at(-1)?.hits ?? 0;
    let begin = count;
    while (begin > 0 && places[begin - 1].line >= top && left + places[begin - 1].x >= from) begin--;
    if (run.doing(request, step) === "finished") ink.globalAlpha = 0.6;
    if (cut && begin < count) {
      ink.fillStyle = theme.muted;
      ink.fillText("…", left + places[begin].x - 12, y + 1);
    }
    for (let i = begin; i < count; i++) {
      const piece = request.shown[i], place = places[i], fresh = piece.origin !== "prompt" && piece.step === step;
      this._piece(ink, theme, piece, place, left + place.x, y + (place.line - top) * LINE, fresh, piece.index < hits);
    }
    let x = left + end.x + end.wide;
    for (const word of run.proposed(request, step)) {
      const text = run.words[word], wide = ink.measureText(text).width;
      this._piece(ink, theme, { word, origin: "draft" }, { text, wide }, x, y + (end.line - top) * LINE, false, false);
      x += wide;
    }
  }

  /** A token, or a draft that is no part of the text. */
  _piece(ink, theme, piece, place, x, y, fresh, hit) {
    const drafted = MARKS[piece.origin], color = COLORS[piece.origin], rejected = piece.origin === "rejected";
    const back = hit ? COLORS.hit : color ?? (fresh ? COLORS.decode : null);
    this.boxes.push({ piece, x, y, wide: place.wide });
    if (back) {
      ink.fillStyle = faded(back, !fresh ? 0.2 : rejected ? 0.35 : 1);
      ink.fillRect(x, y - 1, place.wide, LINE - 1);
    }
    const quiet = piece.origin === "prompt" || piece.origin === "draft";
    ink.fillStyle = fresh && !rejected ? inkOn(back) : quiet ? theme.muted : theme.ink;
    ink.fillText(place.text, x, y + 1);
    if (drafted) mark(ink, drafted, x, y, place, fresh && !rejected ? ink.fillStyle : color ?? theme.muted);
  }
}

const LINE = 18;

/** The palette's blue needs white words; on the others dark ones are easier to read. */
function inkOn(color) {
  return color === COLORS.decode ? "#FFFFFF" : "#222222";
}

/** Draw the line that tells what became of a draft: under the word, or through it. */
function mark(ink, kind, x, y, { text, wide }, color) {
  const blank = ink.measureText(text.match(/^\s*/)[0]).width, left = x + blank, right = x + wide - 0.5;
  const low = y + LINE - 3;
  ink.strokeStyle = color;
  ink.lineWidth = 1.4;
  ink.setLineDash(kind === "dotted" ? [1.5, 2.5] : []);
  ink.beginPath();
  if (kind === "wave") {
    ink.moveTo(left, low);
    for (let at = 1; left + 2 * at <= right; at++) ink.lineTo(left + 2 * at, low + (at % 2 ? -2 : 0));
  } else {
    for (const level of { strike: [y + LINE / 2 - 0.5], double: [low - 2.5, low] }[kind] ?? [low]) {
      ink.moveTo(left, level);
      ink.lineTo(right, level);
    }
  }
  ink.stroke();
  ink.setLineDash([]);
  ink.lineWidth = 1;
}

// ------------------------------------------------------------------------------------------------------------- Meters

/** Four numbers of the step, each with its course over the run. */
class Meters extends Panel {
  constructor(player) {
    super(player, "meters", "Meters");
    this.title.hidden = true;
  }

  columns(width) {
    return width < 560 ? 2 : 4;
  }

  wish(view, width) {
    return (4 / this.columns(width)) * 84 - 8;
  }

  state(view) {
    return [view.position.toFixed(2), view.run.numEvents].join();
  }

  under() {
    return null;
  }

  tip() {
    return [];
  }

  meters(view) {
    const step = view.run.steps[view.step], budget = step?.budget ?? view.run.settings.max_num_batched_tokens;
    const computed = one => one.tokens.prefill + one.tokens.decode + one.tokens.padding;
    const free = view.run.settings.scheduling_policy === "static";
    const { total } = view.run.at(view.step);
    return [
      { label: "output tokens per second", value: step ? Math.round(step.rate).toLocaleString("en") : "–", of: s => s.rate, color: COLORS.accepted },
      { label: "requests in the batch", value: step ? String(step.batch) : "–", of: s => s.batch, color: COLORS.decode },
      {
        label: budget && !free ? `tokens in the step, budget ${budget.toLocaleString("en")}` : "tokens in the step",
        value: step ? String(computed(step)) : "–", of: computed, stack: KINDS, most: free ? undefined : budget,
      },
      {
        label: total ? `of ${plural(total, "block")} held` : "cache without blocks",
        value: step?.total ? `${Math.round((100 * (step.total - step.free)) / step.total)} %` : "–",
        of: s => (s.total ? (s.total - s.free) / s.total : 0), color: COLORS.hit, most: 1,
      },
    ];
  }

  paint(view, ink, width) {
    const columns = this.columns(width), wide = (width - (columns - 1) * 16) / columns, { steps } = view.run;
    this.meters(view).forEach((meter, i) => {
      const x = (i % columns) * (wide + 16), y = Math.floor(i / columns) * 84;
      ink.textBaseline = "top";
      ink.textAlign = "left";
      font(ink, 19, "600");
      ink.fillStyle = view.theme.ink;
      ink.fillText(meter.value, x, y);
      const room = ink.measureText(meter.value).width + 8;
      font(ink, 11);
      ink.fillStyle = view.theme.muted;
      wrap(ink, meter.label, wide - room, 2).forEach((line, j, all) => ink.fillText(line, x + room, y + (all.length > 1 ? 12 * j - 1 : 6)));
      if (steps.length) this._course(view, ink, meter, x, y + 26, wide, 50);
    });
    this.canvas.setAttribute("aria-label", this.meters(view).map(meter => `${meter.value} ${meter.label}`).join(", "));
  }

  /** The values of all steps, those to come faded; a pixel shows the largest of its steps. */
  _course(view, ink, meter, x, y, wide, high) {
    const { steps, live } = view.run, span = live ? Math.max(steps.length, 30) : steps.length;
    const largest = steps.reduce((most, step) => Math.max(most, meter.of(step)), 1e-9);
    // A budget that is never nearly used would leave nothing to see.
    const limit = meter.most && largest > meter.most / 8 ? meter.most : null, scale = Math.max(largest, limit ?? 0);
    const bars = Math.min(span, Math.floor(wide)), one = wide / bars;
    for (let bar = 0; bar < bars; bar++) {
      const from = Math.floor((bar * span) / bars), until = Math.max(from + 1, Math.floor(((bar + 1) * span) / bars));
      if (from >= steps.length) break;
      let chosen = steps[from];
      for (const step of steps.slice(from + 1, until)) if (meter.of(step) > meter.of(chosen)) chosen = step;
      ink.globalAlpha = from <= view.step ? 1 : 0.25;
      let below = y + high;
      for (const kind of meter.stack ?? [null]) {
        const value = ((kind ? chosen.tokens[kind] : meter.of(chosen)) / scale) * high;
        ink.fillStyle = kind ? COLORS[kind] : meter.color;
        ink.fillRect(x + bar * one, (below -= value), Math.max(0.8, one - (one > 4 ? 1 : 0)), value);
      }
    }
    ink.globalAlpha = 1;
    ink.fillStyle = view.theme.faint;
    ink.fillRect(x, y + high, wide, 1);
    if (limit) ink.fillRect(x, y + high * (1 - limit / scale), wide, 1);
    ink.fillStyle = view.theme.ink;
    ink.fillRect(x + (Math.min(view.position, span) / span) * wide - 0.75, y - 2, 1.5, high + 4);
  }
}

// ------------------------------------------------------------------------------------------------------------- Player

const PANELS = { tape: Tape, memory: Memory, text: Text, meters: Meters };
const ICONS = {
  first: "M3 2h2v10h-2zM12 2v10l-7-5z", back: "M10 2v10l-7-5z", forward: "M4 2v10l7-5z",
  play: "M3 1.5v11l9.5-5.5z", pause: "M3 2h3v10h-3zM8 2h3v10h-3z",
};
const LEGEND = {
  prefill: "prefill", decode: "decode", padding: "padding", hit: "prefix hit", preempted: "preempted",
  draft: "draft to verify", accepted: "accepted draft", rejected: "rejected draft", corrected: "corrected token",
  bonus: "bonus token",
};
const MEANINGS = {
  draft: "a draft that the next step verifies", accepted: "an accepted draft", rejected: "a rejected draft",
  corrected: "the model's token in place of the rejected draft", bonus: "a bonus token, after all drafts were accepted",
};

export class Player {
  constructor(place, run, { panels = Object.keys(PANELS), axis = "steps", speed = 1, position = null, readable = false } = {}) {
    for (const name of panels) if (!PANELS[name]) throw new Error(`no panel ${name}: ${Object.keys(PANELS).join(", ")}`);
    this.run = run;
    this.readable = readable; // whether a large pool shows in part, with words in each block
    this.axis = axis;
    this.speed = speed;
    this.position = position ?? run.steps.length; // in steps: after 2.5 of them, half of the third
    this.home = position; // where a run that was followed to its end shows again, or null: at its end
    this.playing = false;
    this.following = run.live;
    this.focus = this.pinned = this.block = null;
    this.stats = { frames: 0, drawing: 0 };
    this._still = window.matchMedia("(prefers-reduced-motion: reduce)");
    this._makeBox(place);
    this.panels = panels.map(name => new PANELS[name](this));
    for (const panel of this.panels) this._grid.append(panel.box);
    this._resized = new ResizeObserver(() => this._readTheme()); // also when a page takes the box in
    this._resized.observe(this.box);
    this._themed = new MutationObserver(() => this._readTheme());
    for (const node of [document.documentElement, document.body]) this._themed.observe(node, { attributes: true });
    this._dark = window.matchMedia("(prefers-color-scheme: dark)");
    this._dark.addEventListener("change", (this._onDark = () => this._readTheme()));
    this._readTheme();
    this.grown();
  }

  get step() {
    return Math.ceil(this.position - 1e-6) - 1;
  }

  /** The number of the first request that has not finished. */
  firstOpen() {
    const open = this.run.requests.findIndex(request => this.run.doing(request, this.step) !== "finished");
    return open < 0 ? this.run.requests.length : open;
  }

  /** Whether nothing should move by itself. */
  get calm() {
    return this._still.matches;
  }

  /** Steps since the state that shows began, for what fades. */
  get sinceStep() {
    return this.playing || this.following ? (performance.now() - this._stepSince) / 700 : 0;
  }

  /** Add a piece of a recording. Return false if something before it is missing. */
  append(piece) {
    const whole = this.run.append(piece);
    if (whole) this.grown();
    return whole;
  }

  /** Show another run, which has lost its oldest steps: the playhead stays at its step. */
  replace(run) {
    const lost = run.firstStep - this.run.firstStep, pinned = this.pinned?.id;
    this.position = Math.max(0, Math.min(run.steps.length, this.position - lost));
    this.run = run;
    this.pinned = this.focus = run.requests.find(request => request.id === pinned) ?? null;
    for (const panel of this.panels) panel.forget();
    this.grown();
  }

  /** Show what the run has gained. */
  grown() {
    if (this.run.live && !this._wasLive) this.follow();
    this._wasLive = this.run.live;
    this._range.max = this.run.steps.length;
    this._legend();
    this.wake();
  }

  play() {
    if (this.position >= this.run.steps.length) this.position = 0;
    for (const panel of this.panels) panel.auto = true;
    this.playing = true;
    this.following = false;
    this._last = undefined;
    this.wake();
  }

  pause() {
    this.playing = this.following = false;
    this.wake();
  }

  toggle() {
    if (this.playing || this.following) this.pause();
    else this.play();
  }

  /** Show the state after `position` steps, and stop there. */
  seek(position) {
    this.position = Math.max(0, Math.min(this.run.steps.length, position));
    this.pause();
  }

  /** Show the newest step, and go on with the engine. */
  follow() {
    this.playing = false;
    this.following = true;
    for (const panel of this.panels) panel.auto = true;
    this.wake();
  }

  pin(request) {
    this.pinned = request && this.pinned !== request ? request : null;
    this.focus = this.pinned;
    this.wake();
  }

  /** The pointer moved: to a request or a block of a panel, or away (null). */
  point(at) {
    this.focus = at?.request ?? this.pinned;
    this.block = at?.block ?? null;
    const lines = at ? at.panel.tip(at) : [];
    this._tip.hidden = !lines.length;
    if (lines.length) this._placeTip(at, lines);
    this.wake();
  }

  destroy() {
    cancelAnimationFrame(this._frame);
    this._resized.disconnect();
    this._themed.disconnect();
    this._dark.removeEventListener("change", this._onDark);
    this.box.remove();
  }

  /** Ask for a frame, unless one is on its way. */
  wake() {
    this._frame ??= requestAnimationFrame(now => this._draw(now));
  }

  _draw(now) {
    this._frame = undefined;
    const began = performance.now(), before = this.step;
    this._advance(now);
    if (before !== this.step || this._stepSince === undefined) this._stepSince = began;
    const sliding = this.panels.filter(panel => panel.move(this)).length > 0;
    for (const panel of this.panels) panel.draw(this);
    this._say();
    this.stats.frames++;
    this.stats.drawing += performance.now() - began;
    const behind = this.following && (this.position < this.run.steps.length || this.sinceStep < 1);
    if (this.playing || behind || sliding) this.wake();
  }

  _advance(now) {
    const passed = Math.min(0.1, (now - (this._last ?? now)) / 1e3), end = this.run.steps.length;
    this._last = now;
    if (this.following) {
      const behind = end - this.position;
      this.position = this.calm || behind > 40 ? end : Math.min(end, this.position + Math.max(behind * 0.25, 0.05));
      this.following = this.run.live || this.position < end;
      if (!this.following && this.home !== null) this.seek(this.home);
    } else if (this.playing) {
      this.position += passed * this._rate();
      if (this.position >= end) {
        this.position = end;
        if (this.run.live) this.follow();
        else this.playing = false;
      }
    }
  }

  /** Steps per second of the playhead. On the time axis a long step takes long; both axes take as long in all. */
  _rate() {
    const rate = STEPS_PER_SECOND * this.speed, { steps } = this.run;
    if (this.axis === "steps" || !steps.length) return rate;
    const i = Math.min(Math.floor(this.position), steps.length - 1);
    const mean = (steps.at(-1).end - steps[0].start) / steps.length;
    return (rate * mean) / Math.max(1, (steps[i + 1]?.start ?? steps[i].end) - steps[i].start);
  }

  _makeBox(place) {
    this.box = element("div", "mp");
    this.box.player = this; // for tests, and for the browser's console
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "group");
    this.box.setAttribute("aria-label", "Player of an engine run. Space plays, arrow keys step.");
    this.box.dataset.lmSuppressShortcuts = "true"; // JupyterLab's shortcuts would take the keys
    this.box.append(element("style", "", STYLE), this._makeBar());
    this._key = element("div", "mp-legend");
    this._grid = element("div", "mp-grid");
    this._tip = element("div", "mp-tip");
    this._tip.hidden = true;
    this._tip.setAttribute("role", "tooltip");
    this.box.append(this._key, this._grid, this._tip);
    this.box.addEventListener("keydown", event => this._onKey(event));
    place.append(this.box);
  }

  _makeBar() {
    const bar = element("div", "mp-bar");
    const button = (text, label, action) => {
      const made = element("button", "");
      if (ICONS[text]) made.append(icon(ICONS[text]));
      else made.textContent = text;
      made.type = "button";
      made.setAttribute("aria-label", label);
      made.title = label;
      made.addEventListener("click", action);
      bar.append(made);
      return made;
    };
    button("first", "Go to the start (Home)", () => this.seek(0));
    button("back", "Step back (left arrow)", () => this.seek(this.step));
    this._play = button("play", "Play (space)", () => this.toggle());
    this._play.classList.add("mp-play");
    button("forward", "Step forward (right arrow)", () => this.seek(this.step + 2));
    this._range = element("input", "mp-range");
    Object.assign(this._range, { type: "range", min: 0, max: 0, step: 1, value: 0 });
    this._range.setAttribute("aria-label", "Step");
    this._range.addEventListener("input", () => this.seek(Number(this._range.value)));
    this._read = element("span", "mp-read"); // an <output> would be read aloud at every step
    bar.append(this._range, this._read);
    this._live = button("● live", "Follow the running engine (End)", () => this.follow());
    this._live.classList.add("mp-live");
    const choice = (label, options, value, action) => {
      const made = element("select", "");
      made.setAttribute("aria-label", label);
      made.title = label;
      for (const [key, text] of options) made.append(new Option(text, key, key === value, key === value));
      made.addEventListener("change", () => action(made.value));
      bar.append(made);
    };
    choice("Axis", [["steps", "steps"], ["time", "time"]], this.axis, value => {
      this.axis = value;
      this.wake();
    });
    const speeds = [0.25, 0.5, 1, 2, 4, 8].map(speed => [String(speed), `× ${speed}`]);
    choice("Speed", speeds, String(this.speed), value => (this.speed = Number(value)));
    return bar;
  }

  _onKey(event) {
    if (["SELECT", "BUTTON"].includes(event.target.tagName) && event.key === " ") return;
    const actions = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.seek(this.step),
      ArrowRight: () => this.seek(this.step + 2),
      Home: () => this.seek(0),
      End: () => (this.run.live ? this.follow() : this.seek(this.run.steps.length)),
      Escape: () => this.pin(null),
    };
    if (!actions[event.key] || event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
  }

  _legend() {
    const shown = Object.keys(LEGEND).filter(name => this.run.present.has(name));
    if (shown.join() === this._shown) return;
    this._shown = shown.join();
    this._key.replaceChildren(...shown.map(name => {
      const item = element("span", "");
      const swatch = element("i", MARKS[name] ? `mp-mark mp-${MARKS[name]}` : "", MARKS[name] ? "ab" : name === "preempted" ? "✕" : "");
      if (MARKS[name]) swatch.style.setProperty("--mark", COLORS[name] ?? "currentColor");
      else swatch.style.background = COLORS[name] ?? "none";
      item.append(swatch, LEGEND[name]);
      return item;
    }));
    const wait = element("span", "");
    wait.append(element("i", "mp-wait"), "waiting");
    this._key.append(wait);
  }

  /** Write the step into the controls. */
  _say() {
    const { run, step } = this, count = run.steps.length, moving = this.playing || this.following;
    const time = step >= 0 && count && !run.start ? ` · ${milliseconds(run.steps[step].end - run.steps[0].start)}` : "";
    const number = `step ${(run.firstStep + step + 1).toLocaleString("en")} of ${(run.firstStep + count).toLocaleString("en")}`;
    this._read.textContent = number + time;
    this._range.value = step + 1;
    this._range.setAttribute("aria-valuetext", number);
    if (moving !== this._moving) {
      this._moving = moving;
      this._play.replaceChildren(icon(moving ? ICONS.pause : ICONS.play));
      this._play.title = moving ? "Pause (space)" : "Play (space)";
      this._play.setAttribute("aria-label", this._play.title);
    }
    this._live.hidden = !run.live;
    this._live.classList.toggle("mp-on", this.following);
  }

  _placeTip(at, lines) {
    this._tip.replaceChildren(...lines.map(line => element("div", "", line)));
    const box = this.box.getBoundingClientRect(), canvas = at.panel.canvas.getBoundingClientRect();
    const x = canvas.left - box.left + at.x, y = canvas.top - box.top + at.y, wide = this._tip.offsetWidth;
    this._tip.style.left = `${Math.max(4, x + 14 + wide > box.width ? x - wide - 10 : x + 14)}px`;
    this._tip.style.top = `${y + 14}px`;
  }

  /** Read the colours of the page: JupyterLab's, or those that the reader's system asks for. */
  _readTheme() {
    const read = getComputedStyle(this.box);
    const [r, g, b] = (read.backgroundColor.match(/[\d.]+/g) ?? [255, 255, 255]).map(Number);
    const dark = 0.3 * r + 0.6 * g + 0.1 * b < 128;
    this.box.classList.toggle("mp-dark", dark);
    this.theme = {
      name: `${read.backgroundColor}${dark}`, paper: read.backgroundColor, ink: read.color, fill: dark ? 0.45 : 0.33,
      muted: dark ? "#ABABAB" : "#626262", faint: dark ? "#777777" : "#999999",
      cell: dark ? "rgba(255, 255, 255, 0.07)" : "rgba(0, 0, 0, 0.045)",
      kept: dark ? "rgba(255, 255, 255, 0.2)" : "rgba(0, 0, 0, 0.16)",
      shade: dark ? "rgba(255, 255, 255, 0.09)" : "rgba(0, 0, 0, 0.06)",
    };
    this.wake();
  }
}

const STYLE = `
.mp { position: relative; box-sizing: border-box; max-width: 1200px; padding: 10px; border-radius: 8px; text-align: left;
  container-type: inline-size; font: 13px/1.4 ${FONT}; outline-offset: 2px;
  background: var(--jp-layout-color0, Canvas); color: var(--jp-content-font-color1, CanvasText);
  border: 1px solid var(--jp-border-color2, #8886); color-scheme: light dark; }
body[data-jp-theme-light="true"] .mp { color-scheme: light; }
body[data-jp-theme-light="false"] .mp { color-scheme: dark; }
.mp *, .mp *::before { box-sizing: border-box; }
.mp [hidden] { display: none !important; }
.mp-bar { display: flex; flex-wrap: wrap; align-items: center; gap: 4px; }
.mp button, .mp select { font: inherit; color: inherit; background: none; border: 1px solid #8886; border-radius: 5px;
  min-width: 30px; height: 28px; padding: 0 7px; cursor: pointer; }
.mp select { width: 72px; padding: 0 3px; }
.mp select option { color: CanvasText; background: Canvas; }
.mp button svg { display: block; width: 13px; height: 13px; margin: auto; fill: currentColor; }
.mp button:hover, .mp select:hover { background: #8882; }
.mp button:focus-visible, .mp select:focus-visible, .mp:focus-visible { outline: 2px solid ${COLORS.hit}; }
.mp .mp-play, .mp .mp-play:hover { min-width: 38px; background: ${COLORS.decode}; border-color: ${COLORS.decode}; color: #fff; }
.mp .mp-live.mp-on { color: #fff; background: ${COLORS.rejected}; border-color: ${COLORS.rejected}; }
.mp .mp-range { flex: 1 1 120px; min-width: 90px; margin: 0 6px; accent-color: ${COLORS.decode}; }
.mp-read { min-width: 11.5em; font-variant-numeric: tabular-nums; white-space: nowrap; }
.mp-legend { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 8px 2px 2px; font-size: 12px; opacity: 0.9; }
.mp-legend span { display: inline-flex; align-items: center; gap: 5px; white-space: nowrap; }
.mp-legend i { width: 11px; height: 11px; font: bold 11px/11px ${FONT}; text-align: center; }
.mp-legend .mp-mark { width: auto; padding: 0 2px; height: 15px; font: 12px/15px ${FONT}; color: inherit;
  background: color-mix(in srgb, var(--mark) 25%, transparent); text-decoration: underline var(--mark) 1.4px; }
.mp-legend .mp-dotted { background: none; text-decoration-style: dotted; }
.mp-legend .mp-strike { text-decoration-line: line-through; }
.mp-legend .mp-wave { text-decoration-style: wavy; }
.mp-legend .mp-double { text-decoration-style: double; }
.mp-legend .mp-wait { height: 1px; background: #888; }
.mp-grid { display: grid; grid-template-columns: minmax(0, 1fr); gap: 8px; margin-top: 6px; }
@container (min-width: 820px) {
  .mp-grid:has(.mp-memory):has(.mp-text) { grid-template-columns: minmax(0, 1.15fr) minmax(0, 1fr); }
  .mp-grid .mp-tape, .mp-grid .mp-meters { grid-column: 1 / -1; } }
.mp-meters { padding-top: ${PADDING}px !important; }
.mp-panel { padding: 0 ${PADDING}px ${PADDING}px; border: 1px solid #8883; border-radius: 6px; overflow: hidden; }
.mp-title { display: flex; flex-wrap: wrap; gap: 0 10px; padding: 6px 0 5px; font-size: 12.5px; }
.mp-note { opacity: 0.75; font-variant-numeric: tabular-nums; }
.mp canvas { display: block; touch-action: pan-y; }
.mp-tape canvas { cursor: crosshair; }
.mp-tip { position: absolute; z-index: 10; max-width: 280px; padding: 5px 8px; border-radius: 5px; pointer-events: none;
  font-size: 12px; line-height: 1.35; background: #222; color: #fff; border: 1px solid #666; box-shadow: 0 2px 8px #0005; }
.mp-tip div:first-child { font-weight: 600; }
`;

/** Show a recording in `place`. Options: panels, axis ("steps" or "time"), speed, position (in steps), readable. */
export function mount(place, recording, options = {}) {
  const run = new Run();
  run.live = Boolean(options.live);
  run.append(recording);
  return new Player(place, run, options);
}

// ---------------------------------------------------------------------------------------------------------- anywidget

const runs = new Map(); // of each widget model, shared by its views

/** Runs once for each widget, before any view: pieces that come early are not lost. */
function initialize({ model }) {
  const id = model.get("player_id"), run = new Run(), views = new Set();
  run.live = model.get("live");
  run.append(model.get("recording"));
  runs.set(id, { run, views });
  model.on("msg:custom", message => {
    if (message.kind !== "piece") return;
    run.live = message.live;
    if (!run.append(message.piece)) model.send({ kind: "want", start: run.numEvents, first_word: run.words.length });
    for (const view of views) view.grown();
  });
  // The kernel may have sent more before anyone listened.
  model.send({ kind: "want", start: run.numEvents, first_word: run.words.length });
}

function render({ model, el }) {
  const id = model.get("player_id"), { run, views } = runs.get(id);
  const player = new Player(el, run, model.get("options"));
  views.add(player);
  player.box.dataset.minillmLive = id;
  document.dispatchEvent(new CustomEvent("minillm-live", { detail: id }));
  return () => {
    views.delete(player);
    player.destroy();
  };
}

export default { initialize, render };
