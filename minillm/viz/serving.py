"""Chapter 13's pictures: text per user, held-back characters, a slow reader, latency against load, routing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes

from minillm.viz.style import (
    ACCEPTED,
    DECODE,
    FAINT,
    INK,
    KV,
    PREFILL,
    REJECTED,
    WASTE,
    Picture,
    quiet,
    style,
)
from minillm.viz.widget import Explorer

Line = Sequence[tuple[float, float]]  # (seconds, value)


def users_figure(panels: Mapping[str, Sequence[Sequence[float]]]) -> Picture:
    """Draw when each user sees text: a grey bar up to the first piece, and a tick per piece.

    `panels` maps a title to a list of times in seconds for each user.
    """
    with style():
        most = max(len(users) for users in panels.values())
        figure = Picture(figsize=(9.2, 0.7 + len(panels) * (0.75 + 0.22 * most)))
        rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (title, users) in zip(rows, panels.items(), strict=True):
            for number, times in enumerate(users):
                axes.barh(number, min(times), color=WASTE, height=0.5)
                axes.plot(times, [number] * len(times), "|", color=DECODE, ms=9, mew=1.6)
            axes.set_yticks(range(len(users)), [f"user {n + 1}" for n in range(len(users))])
            axes.invert_yaxis()
            axes.set_title(title)
        rows[-1].set_xlabel("seconds since all users sent their prompts")
        rows[-1].set_xlim(0, None)
        return figure


def held_figure(held: Sequence[str], stop: str) -> Picture:
    """Draw how many characters were held back after each token, and the text before it is shown."""
    with style():
        figure = Picture(figsize=(9.2, 2.6))
        axes = figure.subplots()
        axes.bar(range(1, len(held) + 1), [len(text) for text in held], color=REJECTED, width=0.9)
        for number, (text, after) in enumerate(pairwise([*held, ""]), start=1):
            if len(text) > len(after) or (text and number == len(held)):
                side = "right" if number > 0.8 * len(held) else "center"
                axes.text(number, len(text) + 0.4, _shown(text), ha=side, va="bottom", fontsize=9)
        axes.set_xlabel("tokens generated")
        axes.set_ylabel("characters")
        axes.set_xlim(0, len(held) + 1)
        axes.set_ylim(0, 1.25 * max(4, *map(len, held)))
        axes.set_title(f"Held back for the stop string {_shown(stop)}")
        return figure


def _shown(text: str) -> str:
    """Return the text in quotation marks, with a dot for each character that the pictures' font lacks."""
    return repr("".join(c if c < "\u0250" else "·" for c in text))


def slow_reader_figure(made: Line, queue: Line, mailbox: Line) -> Picture:
    """Draw the characters that the engine has made, and those that a slow reader has, by time."""
    with style():
        figure = Picture(figsize=(9.2, 3.0))
        axes = figure.subplots()
        lines = (
            ("the engine", made, INK),
            ("with a queue", queue, REJECTED),
            ("with a mailbox", mailbox, ACCEPTED),
        )
        end = max(line[-1][0] for _, line, _ in lines)
        for name, line, color in lines:
            times, values = zip(*[(0.0, 0.0), *line, (end, line[-1][1])], strict=True)
            axes.step(times, values, where="post", color=color, lw=1.8, label=name)
        axes.set_xlabel("seconds")
        axes.set_ylabel("characters")
        axes.set_xlim(0, end)
        axes.set_ylim(0, None)
        axes.legend(loc="lower right")
        axes.set_title("The text of a slow reader, by time")
        return figure


# --- latency against load ---


@dataclass(frozen=True)
class Point:
    """One run at `load` times the capacity: TTFT and TPOT of each request, and all times between tokens (seconds)."""

    load: float
    ttft: Sequence[float]
    tpot: Sequence[float]
    gaps: Sequence[float]


def share(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least this part of the values does not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, -int(-len(ranked) * part // 1) - 1))]


def load_figure(points: Sequence[Point]) -> Picture:
    """Draw the median and the 99th percentile of TTFT and of the time between tokens, by load."""
    with style():
        figure = Picture(figsize=(9.2, 3.1))
        left, right = figure.subplots(1, 2)
        loads = [point.load for point in points]
        for axes, title, values in (
            (left, "Time to first token (ms)", [point.ttft for point in points]),
            (right, "Time between two tokens (ms)", [point.gaps for point in points]),
        ):
            for part, name, color in ((0.5, "median", DECODE), (0.99, "99 %", REJECTED)):
                axes.plot(
                    loads, [1e3 * share(one, part) for one in values], "o-", color=color, lw=1.8, label=name
                )
            axes.axvline(1, color=FAINT, lw=1, ls=":")
            axes.set_ylim(0, None)
            axes.set_xlabel("load (1: all that the engine can do)")
            axes.set_title(title)
        left.legend(loc="upper left")
        return figure


def goodput_figure(points: Sequence[Point], ttft_ms: float, tpot_ms: float) -> Picture:
    """Draw the part of the requests within both limits, by load."""
    with style():
        figure = Picture(figsize=(7.2, 2.7))
        axes = figure.subplots()
        good = [_within(point, ttft_ms / 1e3, tpot_ms / 1e3) for point in points]
        bars = axes.bar(
            range(len(points)), good, color=[ACCEPTED if part >= 0.9 else WASTE for part in good], width=0.6
        )
        for bar, part in zip(bars, good, strict=True):
            axes.text(bar.get_x() + bar.get_width() / 2, part + 0.02, f"{part:.0%}", ha="center", fontsize=9)
        axes.set_xticks(range(len(points)), [f"{point.load:.2f}" for point in points])
        axes.set_xlabel("load")
        axes.set_ylim(0, 1.15)
        axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
        axes.set_title(f"Requests with TTFT ≤ {ttft_ms:g} ms and TPOT ≤ {tpot_ms:g} ms (green: 90 % or more)")
        return figure


def _within(point: Point, ttft: float, tpot: float) -> float:
    both = zip(point.ttft, point.tpot, strict=True)
    return sum(first <= ttft and each <= tpot for first, each in both) / len(point.ttft)


def goodput_explorer(points: Sequence[Point]) -> Explorer:
    """Return `goodput_figure` with a slider for each limit. They begin at twice the medians of the lowest load."""
    ttft, tpot = (2e3 * share(values, 0.5) for values in (points[0].ttft, points[0].tpot))
    highest = 1e3 * share(points[-1].ttft, 0.9)
    return Explorer(
        lambda ttft_limit_ms, tpot_limit_ms: goodput_figure(points, ttft_limit_ms, tpot_limit_ms),
        ttft_limit_ms=(1, max(2, round(highest)), max(1, round(ttft))),
        tpot_limit_ms=(1, max(2, round(5 * tpot)), max(1, round(tpot))),
    )


@dataclass(frozen=True)
class Arrivals:
    """Requests of one run: (arrival, TTFT) in seconds of those that were answered, and the arrivals of the others."""

    answered: Sequence[tuple[float, float]]
    refused: Sequence[float] = ()


def admission_figure(runs: Mapping[str, Arrivals]) -> Picture:
    """Draw each request's TTFT by its arrival, and a cross at 0 for each one that was refused."""
    with style():
        figure = Picture(figsize=(9.2, 2.9))
        panels = figure.subplots(1, len(runs), sharey=True, sharex=True, squeeze=False)[0]
        for axes, (title, run) in zip(panels, runs.items(), strict=True):
            axes.plot(*zip(*run.answered, strict=True), "o", color=DECODE, ms=4, label="answered")
            if run.refused:
                axes.plot(run.refused, [0] * len(run.refused), "x", color=REJECTED, ms=6, label="429")
            axes.set_xlabel("arrival (s)")
            axes.set_title(title)
            axes.legend(loc="upper left")
        panels[0].set_ylabel("TTFT (s)")
        panels[0].set_ylim(-0.04 * panels[0].get_ylim()[1], 1.25 * panels[0].get_ylim()[1])
        return figure


def metrics_figure(samples: Sequence[tuple[float, Mapping[str, float]]]) -> Picture:
    """Draw running and waiting requests and the used part of the cache, by time. `samples` are (seconds, metrics)."""
    with style():
        figure = Picture(figsize=(9.2, 2.9))
        left, right = figure.subplots(1, 2)
        times = [at for at, _ in samples]
        for name, color in (("running", DECODE), ("waiting", WASTE)):
            values = [sample[f"num_requests_{name}"] for _, sample in samples]
            left.plot(times, values, color=color, lw=1.8, label=name)
        left.set_ylim(0, None)
        left.legend()
        left.set_title("Requests")
        right.plot(times, [100 * sample["kv_cache_usage_perc"] for _, sample in samples], color=KV, lw=1.8)
        right.set_ylim(0, None)
        right.set_title("KV cache used (%)")
        for axes in (left, right):
            axes.set_xlabel("seconds")
        return figure


def routing_figure(rows: Mapping[str, tuple[float, float]]) -> Picture:
    """Draw (part of the prompt tokens found in a cache, median TTFT in seconds) for each policy."""
    with style():
        figure = Picture(figsize=(8.2, 0.9 + 0.45 * len(rows)))
        left, right = figure.subplots(1, 2, sharey=True)
        places = range(len(rows))
        _bars(left, [hits for hits, _ in rows.values()], KV, [f"{hits:.0%}" for hits, _ in rows.values()])
        _bars(
            right,
            [ttft for _, ttft in rows.values()],
            PREFILL,
            [f"{1e3 * ttft:.0f} ms" for _, ttft in rows.values()],
        )
        left.set_yticks(places, list(rows))
        left.invert_yaxis()
        right.tick_params(axis="y", length=0)
        left.set_title("Prompt tokens found in the cache")
        right.set_title("Median TTFT")
        return figure


def _bars(axes: Axes, values: Sequence[float], color: str, texts: Sequence[str]) -> None:
    axes.barh(range(len(values)), values, color=color, height=0.6)
    for place, (value, text) in enumerate(zip(values, texts, strict=True)):
        axes.text(value, place, f" {text}", va="center", fontsize=9)
    quiet(axes)
    axes.set_xlim(0, 1.25 * max(values))
