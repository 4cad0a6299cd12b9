"""A race in a notebook: several engines write the same stories, and are shown side by side.

    race = Race(llm, prompts, params)
    with race:                                   # shows it, and follows the engine that writes
        race.run("KV cache", "keys and values are kept", engine)

The engines run one after the other, so that none slows another one down. The replay starts all of them together.
"""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes

from minillm.engine.request import RequestOutput
from minillm.llm import LLM
from minillm.player.page import module
from minillm.player.race import Lane, RaceRecording
from minillm.sampling import SamplingParams
from minillm.viz.player import Live, PlayerWidget
from minillm.viz.style import DECODE, FAINT, INK, Picture, printable, style

COLUMNS = (0.0, 0.17, 0.345)  # shares of the picture's width: where name, stories and text start
LETTERS = 88  # in a line of text
LINES = 2


class RaceWidget(PlayerWidget):
    """The view of a `Race` in JupyterLab."""

    _esm = module("race.js")


class Race(Live):
    """A race of engines that write one story for each prompt. `story` is the one whose text shows first.

    `speed` is that of the replay: at 0.1, a second of the run takes ten. All engines have `llm`'s tokenizer. Each reads
    the beginning that all prompts share once before its lane starts; it is not shown.
    """

    file = "race.js"
    widget_type = RaceWidget

    def __init__(
        self,
        llm: LLM,
        prompts: Sequence[str],
        params: Sequence[SamplingParams],
        *,
        story: int = 0,
        speed: float = 0.1,
    ) -> None:
        if llm.tokenizer is None:
            raise ValueError(f"{llm.name} has no tokenizer. A race shows texts.")
        self.prompts, self.params = list(prompts), list(params)
        self.shared = _shared_beginning(self.prompts) if len(self.prompts) > 1 else ""
        titles = [prompt.removeprefix(self.shared) for prompt in self.prompts]
        lengths = [one.max_tokens or 0 for one in self.params]
        stories = list(zip(titles, lengths, strict=True))
        self.recording = RaceRecording(stories, llm.tokenizer.token_text)
        super().__init__(self.recording, {"story": story, "speed": speed})

    def run(self, name: str, idea: str, engine: LLM) -> list[RequestOutput]:
        """Let an engine that records a trace (`trace=True`) write all stories in a lane of its own, and return them."""
        warm_up = self.shared or "Once"  # the first steps of an engine are slow
        engine.generate(warm_up, SamplingParams(max_tokens=2), use_tqdm=False)
        engine.trace.clear()
        with self._lock:
            self.recording.enter(name, idea, engine.trace)
        outputs = engine.generate(self.prompts, self.params, use_tqdm=False)
        self.update()
        return outputs

    def still(self) -> Picture:
        return race_figure(self.recording, self.options["story"])


def race_figure(recording: RaceRecording, story: int = 0) -> Picture:
    """Draw all lanes in the middle of the fastest one's run."""
    lanes = recording.lanes
    moment = min((lane.end for lane in lanes if lane.end is not None), default=0.0) / 2
    with style():
        picture = Picture(figsize=(9.4, 0.6 + 0.62 * len(lanes)), layout="none")
        axes = picture.add_axes((0.015, 0.0, 0.985, 1.0))
        axes.set_xlim(0, 1)
        axes.set_ylim(len(lanes) + 0.05, -0.85)
        axes.axis("off")
        title = f"{_seconds(moment)} after the start of each engine"
        axes.text(0, -0.58, title, fontweight="bold", fontsize=11, va="center")
        heads = (f"all {len(recording.stories)} stories", f"the text of story {story + 1}")
        for x, head in zip(COLUMNS[1:3], heads, strict=True):
            axes.text(x, -0.16, head, fontsize=8.5, color=FAINT, va="center")
        for row, lane in enumerate(lanes):
            _draw_lane(axes, row, lane, recording, story, moment)
        return picture


def _draw_lane(axes: Axes, row: int, lane: Lane, recording: RaceRecording, story: int, moment: float) -> None:
    """Draw a lane's name, its stories as bars, the text of one story, and how long the whole lane takes."""
    axes.axhline(row + 0.02, color="#DDDDDD", lw=0.8)
    axes.text(COLUMNS[0], row + 0.3, lane.name, fontweight="bold", fontsize=10, va="center")
    took = "did not finish" if lane.end is None else f"all after {_seconds(lane.end)}"
    axes.text(COLUMNS[0], row + 0.68, took, fontsize=9, va="center")
    written = [0] * len(recording.stories)
    for token in lane.tokens:
        written[token.story] += token.time <= moment
    unit = (COLUMNS[2] - COLUMNS[1] - 0.02) / max(1, recording.num_tokens)
    x = COLUMNS[1]
    for number, (_, length) in enumerate(recording.stories):
        whole, share = unit * length - 0.002, min(written[number], length) / max(1, length)
        axes.broken_barh([(x, whole)], (row + 0.2, 0.24), facecolors="#E4E4E4")
        axes.broken_barh([(x, whole * share)], (row + 0.2, 0.24), facecolors=DECODE)
        if number == story:
            axes.broken_barh([(x, whole)], (row + 0.2, 0.24), facecolors="none", edgecolors=INK, lw=1.2)
        x += unit * length
    count = f"{sum(written)} of {recording.num_tokens} tokens"
    axes.text(COLUMNS[1], row + 0.68, count, fontsize=9, va="center")
    text = printable(recording.stories[story][0] + lane.text(story, moment))
    lines = textwrap.wrap(text, LETTERS)
    shown = lines if len(lines) <= LINES else [*lines[: LINES - 1], lines[LINES - 1][: LETTERS - 1] + "…"]
    for number, line in enumerate(shown):
        axes.text(COLUMNS[2], row + 0.3 + 0.38 * number, line, fontsize=9, va="center")


def _shared_beginning(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)  # any text between them in order begins as both do
    differs = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(differs, len(first))]


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.0f} ms"
