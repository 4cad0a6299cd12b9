// A race: engines that write the same stories, side by side (race.py has the format), live or to replay.
//
//   mount(element, recording, options) -> race       for a page; race.append(piece) adds what is new
//   export default { initialize, render }            for anywidget, in a notebook
//
// Lanes    what happened: for each lane its tokens, with the state at any time
// Race     the clock, the controls and the rows
//
// No framework and no request to any server. Text goes into textContent only: a prompt is never markup.

export const VERSION = 1;
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif";
const COLORS = { decode: "#0072B2", focus: "#56B4E9", live: "#D55E00" };
const SPEEDS = [[0.02, "1/50"], [0.05, "1/20"], [0.1, "1/10"], [0.2, "1/5"], [0.5, "1/2"], [1, "real time"]];
const PLAY = "M3 1.5v11l9.5-5.5z", PAUSE = "M3 2h3v10h-3zM8 2h3v10h-3z";

// -------------------------------------------------------------------------------------------------------------- Lanes

/** The number of entries of `times`, which are in order, that are at most `time`. */
function countUpTo(times, time) {
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The events of a race, arranged by lane and story. */
export class Lanes {
  constructor() {
    this.numEvents = 0;
    this.words = [];
    this.stories = [];
    this.lanes = [];
    this.live = false;
  }

  /** Add a piece. Return false if something before it is missing; then nothing is added. */
  append(piece) {
    if (piece.version !== VERSION) throw new Error(`race version ${piece.version}: this page reads ${VERSION}`);
    if (piece.start > this.numEvents || piece.first_word > this.words.length) return false;
    this.stories = piece.stories.map(([title, length]) => ({ title, length }));
    this.words.push(...piece.words.slice(this.words.length - piece.first_word));
    for (const event of piece.events.slice(this.numEvents - piece.start)) {
      this[`_${event[0]}`](...event.slice(1));
      this.numEvents++;
    }
    return true;
  }

  _lane(name, idea) {
    this.lanes.push({ name, idea, end: null, stories: this.stories.map(() => ({ times: [], words: [] })) });
  }

  _token(time, story, word) {
    const written = this.lanes.at(-1).stories[story];
    written.times.push(time);
    written.words.push(word);
  }

  _end(time) {
    this.lanes.at(-1).end = time;
  }

  get numTokens() {
    return this.stories.reduce((sum, story) => sum + story.length, 0);
  }

  /** The time of the last token of all lanes. */
  get length() {
    return Math.max(0, ...this.lanes.flatMap(lane => lane.stories.map(story => story.times.at(-1) ?? 0)));
  }

  /** The middle of the fastest lane's run; the whole length if no lane has ended. */
  get middle() {
    const ends = this.lanes.filter(lane => lane.end !== null).map(lane => lane.end);
    return ends.length ? Math.min(...ends) / 2 : this.length;
  }

  count(lane, story, time) {
    return countUpTo(lane.stories[story].times, time);
  }

  text(lane, story, time) {
    return lane.stories[story].words.slice(0, this.count(lane, story, time)).map(word => this.words[word]).join("");
  }
}

// --------------------------------------------------------------------------------------------------------------- Race

function element(name, className = "", text = "") {
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

const seconds = us => (us < 1e6 ? `${Math.round(us / 1e3)} ms` : `${(us / 1e6).toFixed(2)} s`);

export class Race {
  constructor(place, run, { story = 0, speed = 0.1, position = null } = {}) {
    this.run = run;
    this.story = story;
    this.speed = speed;
    this.position = position; // microseconds; null: the fastest lane's middle, or everything while the engines write
    this.playing = false;
    this.rows = [];
    this._makeBox(place);
    this.grown();
  }

  /** The time that shows. */
  get time() {
    return this.position ?? (this.run.live ? Infinity : this.run.middle);
  }

  /** Add a piece of a recording. Return false if something before it is missing. */
  append(piece) {
    const whole = this.run.append(piece);
    if (whole) this.grown();
    return whole;
  }

  /** Show what the race has gained. */
  grown() {
    const { run } = this;
    while (this.rows.length < run.lanes.length) this.rows.push(this._makeRow(run.lanes[this.rows.length]));
    if (this._stories.options.length !== run.stories.length) {
      this._stories.replaceChildren(...run.stories.map((story, i) => new Option(`story ${i + 1}`, i, false, i === this.story)));
    }
    this._range.max = run.length;
    this.wake();
  }

  play() {
    if (this.position === null || this.position >= this.run.length) this.position = 0;
    this.playing = true;
    this._last = undefined;
    this.wake();
  }

  pause() {
    this.playing = false;
    this.wake();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  /** Show the state at `position`, in microseconds, and stop there. */
  seek(position) {
    this.position = Math.max(0, Math.min(this.run.length, position));
    this.pause();
  }

  /** Show the text of another story. */
  choose(story) {
    this.story = story;
    this._stories.value = String(story);
    this.wake();
  }

  destroy() {
    cancelAnimationFrame(this._frame);
    this.box.remove();
  }

  /** Ask for a frame, unless one is on its way. */
  wake() {
    this._frame ??= requestAnimationFrame(now => this._draw(now));
  }

  _draw(now) {
    this._frame = undefined;
    if (this.playing) {
      this.position += Math.min(100, now - (this._last ?? now)) * 1e3 * this.speed;
      this._last = now;
      if (this.position >= this.run.length) [this.position, this.playing] = [this.run.length, false];
    }
    this.rows.forEach((row, i) => this._drawRow(row, this.run.lanes[i]));
    const shown = Math.min(this.time, this.run.length);
    this._range.value = shown;
    this._read.textContent = `${seconds(shown)} of ${seconds(this.run.length)}`;
    this._range.setAttribute("aria-valuetext", this._read.textContent);
    const label = this.playing ? "Pause (space)" : "Play (space)";
    if (this._play.title !== label) {
      this._play.title = label;
      this._play.setAttribute("aria-label", label);
      this._play.replaceChildren(icon(this.playing ? PAUSE : PLAY));
    }
    this._live.hidden = !this.run.live;
    if (this.playing) this.wake();
  }

  _drawRow(row, lane) {
    const { run, time, story } = this;
    let total = 0;
    run.stories.forEach(({ length }, i) => {
      const count = run.count(lane, i, time);
      total += count;
      row.bars[i].firstChild.style.width = `${(100 * Math.min(count, length)) / Math.max(1, length)}%`;
      row.bars[i].classList.toggle("mr-chosen", i === story);
    });
    const done = lane.end !== null && time >= lane.end, count = total.toLocaleString("en");
    write(row.count, `${count} of ${run.numTokens.toLocaleString("en")} tokens`);
    write(row.state, done ? `✓ all after ${seconds(lane.end)}` : total || run.live ? "writing …" : "");
    row.box.classList.toggle("mr-done", done);
    write(row.title, run.stories[story]?.title ?? "");
    write(row.text, run.text(lane, story, time));
  }

  _makeRow(lane) {
    const row = { box: element("div", "mr-row"), bars: [], count: element("span"), state: element("span", "mr-state") };
    const name = element("div", "mr-name"), stories = element("div", "mr-stories"), bars = element("div", "mr-bars");
    const text = element("div", "mr-text");
    name.append(element("b", "", lane.name), element("span", "mr-idea", lane.idea));
    this.run.stories.forEach(({ title, length }, i) => {
      const bar = element("i");
      bar.style.flexGrow = length;
      bar.title = `story ${i + 1}, ${length} tokens: ${title}`;
      bar.append(element("i"));
      bar.addEventListener("click", () => this.choose(i));
      row.bars.push(bar);
      bars.append(bar);
    });
    stories.append(bars, row.count, row.state);
    text.append((row.title = element("span", "mr-title")), (row.text = element("span")));
    row.box.append(name, stories, text);
    this._grid.append(row.box);
    return row;
  }

  _makeBox(place) {
    this.box = element("div", "mr");
    this.box.race = this; // for tests, and for the browser's console
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "group");
    this.box.setAttribute("aria-label", "Race of engines. Space plays, arrow keys move the time.");
    this.box.dataset.lmSuppressShortcuts = "true"; // JupyterLab's shortcuts would take the keys
    this._grid = element("div", "mr-grid");
    this.box.append(element("style", "", STYLE), this._makeBar(), this._grid);
    this.box.addEventListener("keydown", event => this._onKey(event));
    place.append(this.box);
  }

  _makeBar() {
    const bar = element("div", "mr-bar");
    this._play = element("button", "mr-play");
    this._play.type = "button";
    this._play.addEventListener("click", () => this.toggle());
    this._range = element("input", "mr-range");
    Object.assign(this._range, { type: "range", min: 0, max: 0, step: "any", value: 0 });
    this._range.setAttribute("aria-label", "Time");
    this._range.addEventListener("input", () => this.seek(Number(this._range.value)));
    this._read = element("span", "mr-read");
    this._live = element("span", "mr-live", "● the engines write now");
    const speeds = element("select");
    speeds.setAttribute("aria-label", "Speed");
    const given = SPEEDS.some(([speed]) => speed === this.speed) ? [] : [[this.speed, `× ${this.speed}`]];
    for (const [speed, text] of [...SPEEDS, ...given]) speeds.append(new Option(text, speed, false, speed === this.speed));
    speeds.addEventListener("change", () => (this.speed = Number(speeds.value)));
    this._stories = element("select");
    this._stories.setAttribute("aria-label", "Story whose text is shown");
    this._stories.addEventListener("change", () => this.choose(Number(this._stories.value)));
    bar.append(this._play, this._range, this._read, this._live, speeds, this._stories);
    return bar;
  }

  _onKey(event) {
    if (["SELECT", "BUTTON"].includes(event.target.tagName) && event.key === " ") return;
    const shown = Math.min(this.time, this.run.length), part = this.run.length / 100;
    const actions = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.seek(shown - part),
      ArrowRight: () => this.seek(shown + part),
      Home: () => this.seek(0),
      End: () => this.seek(this.run.length),
    };
    if (!actions[event.key] || event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
  }
}

/** Write a text if it is not there yet. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const STYLE = `
.mr { box-sizing: border-box; max-width: 1200px; padding: 10px; border-radius: 8px; text-align: left; outline-offset: 2px;
  container-type: inline-size; font: 13px/1.4 ${FONT}; border: 1px solid var(--jp-border-color2, #8886);
  background: var(--jp-layout-color0, Canvas); color: var(--jp-content-font-color1, CanvasText); color-scheme: light dark; }
body[data-jp-theme-light="true"] .mr { color-scheme: light; }
body[data-jp-theme-light="false"] .mr { color-scheme: dark; }
.mr * { box-sizing: border-box; }
.mr [hidden] { display: none !important; }
.mr-bar { display: flex; flex-wrap: wrap; align-items: center; gap: 4px; }
.mr button, .mr select { font: inherit; color: inherit; background: none; border: 1px solid #8886; border-radius: 5px;
  height: 28px; padding: 0 5px; cursor: pointer; }
.mr select option { color: CanvasText; background: Canvas; }
.mr button svg { display: block; width: 13px; height: 13px; margin: auto; fill: currentColor; }
.mr button:focus-visible, .mr select:focus-visible, .mr:focus-visible { outline: 2px solid ${COLORS.focus}; }
.mr .mr-play { min-width: 38px; background: ${COLORS.decode}; border-color: ${COLORS.decode}; color: #fff; }
.mr .mr-range { flex: 1 1 120px; min-width: 90px; margin: 0 6px; accent-color: ${COLORS.decode}; }
.mr-read { min-width: 9em; font-variant-numeric: tabular-nums; white-space: nowrap; }
.mr-live { padding: 2px 8px; border-radius: 5px; color: #fff; background: ${COLORS.live}; }
.mr-row { display: grid; grid-template-columns: minmax(0, 1fr); gap: 4px 14px; padding: 7px 4px; border-top: 1px solid #8883; }
.mr-grid { margin-top: 8px; }
@container (min-width: 640px) { .mr-row { grid-template-columns: 9.5em 15em minmax(0, 1fr); } }
.mr-name b { display: block; }
.mr-idea { font-size: 11px; line-height: 1.25; display: block; opacity: 0.75; }
.mr-stories span { display: block; font-size: 12px; font-variant-numeric: tabular-nums; }
.mr-done .mr-state { font-weight: 600; }
.mr-bars { display: flex; gap: 2px; height: 16px; margin: 3px 2px 4px; }
.mr-bars > i { display: block; flex: 1 1 0; min-width: 2px; background: #8884; cursor: pointer; }
.mr-bars > i > i { display: block; height: 100%; width: 0; background: ${COLORS.decode}; }
.mr-bars > .mr-chosen { outline: 2px solid; }
.mr-text { height: 4.2em; overflow: hidden; overflow-wrap: anywhere; }
.mr-title { opacity: 0.65; }
`;

/** Show a race in `place`. Options: story (whose text shows), speed (of the replay), position (in microseconds). */
export function mount(place, recording, options = {}) {
  const run = new Lanes();
  run.append(recording);
  return new Race(place, run, options);
}

// ---------------------------------------------------------------------------------------------------------- anywidget

const runs = new Map(); // of each widget model, shared by its views

/** Runs once for each widget, before any view: pieces that come early are not lost. */
function initialize({ model }) {
  const id = model.get("player_id"), run = new Lanes(), views = new Set();
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
  const race = new Race(el, run, model.get("options"));
  views.add(race);
  race.box.dataset.minillmLive = id;
  document.dispatchEvent(new CustomEvent("minillm-live", { detail: id }));
  return () => {
    views.delete(race);
    race.destroy();
  };
}

export default { initialize, render };
