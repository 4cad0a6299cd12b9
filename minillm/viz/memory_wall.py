"""Draw chapter 02's pictures: steps as dots on a roofline, and measured step times with their bounds.

A roofline (Williams, Waterman, Patterson, CACM 52(4), 2009) has two logarithmic axes. Across: the step's FLOP per
byte. Up: the FLOP per second that the machine does. A dot on the roof is a bound. A measured dot is below it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, FuncFormatter

from minillm.config import ModelConfig
from minillm.measure.costs import Cost, decode_cost, prefill_cost, step_cost
from minillm.measure.machine import Machine
from minillm.measure.roofline import ridge, time_at
from minillm.measure.trace import StepRecord, Trace
from minillm.viz.style import DECODE, FAINT, INK, KV, PAPER, PREFILL, REJECTED, WASTE, Picture, style
from minillm.viz.widget import Explorer

INTENSITY = (
    0.2,
    500_000,
)  # the x axis, FLOP per byte: from a float32 decode to a prompt of 128K tokens on int4
BYTES_PER_WEIGHT = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5}  # int4's scales: chapter 7
SLACK = 1.15  # how far a label is from its place, as a factor


@dataclass(frozen=True, slots=True)
class Dot:
    """One step. It is drawn on the roof, or at the rate that it achieved if it was measured in `seconds`."""

    name: str
    cost: Cost
    color: str
    seconds: float | None = None

    def achieved(self, machine: Machine, dtype: str) -> float:
        """Return FLOP per second: measured, or the most that the machine allows."""
        return self.cost.flops / (self.seconds or time_at(self.cost, machine, dtype).seconds)


@dataclass(frozen=True, slots=True)
class Timing:
    """A measured step of `size` requests or prompt tokens; `overhead` is its calls' time with nothing to compute."""

    size: int
    cost: Cost
    seconds: float
    overhead: float


def steps_of(trace: Trace, config: ModelConfig, bytes_per_number: int) -> list[Dot]:
    """Return each step of a run as a dot, with the cost of its tokens and the measured seconds of its forward pass."""
    dots: list[Dot] = []
    for step in trace.of(StepRecord):
        queries = [part.num_tokens for part in step.scheduled]
        contexts = [part.num_computed_tokens for part in step.scheduled]
        cost = step_cost(
            config, queries, contexts, bytes_per_weight=bytes_per_number, bytes_per_kv=bytes_per_number
        )
        prefill = step.num_tokens("prefill") > 0
        what = f"{sum(queries)} prompt tokens" if prefill else f"{len(queries)} requests, a token each"
        name = f"step {len(dots)}: {what}"
        dots.append(Dot(name, cost, PREFILL if prefill else DECODE, step.phases.forward))
    return dots


def run_of(machine: Machine, dtype: str, dots: Sequence[Dot], step: int) -> Picture:
    """Draw a run's steps on the roofline: `step` with its numbers, and all others faintly."""
    dot = dots[step]
    assert dot.seconds is not None
    bound = time_at(dot.cost, machine, dtype)
    with style():
        picture = Picture(figsize=(8, 4))
        axes = picture.subplots()
        axes.set_title(
            f"{dot.name} · {dot.cost.intensity:.1f} FLOP/byte · {_seconds(dot.seconds)} "
            f"({dot.seconds / bound.seconds:.1f} × the bound)"
        )
        _roof(axes, machine, dtype, dots, _span(machine, dtype, dots))
        write_doubts(axes, machine, dtype, dots)
        for other in dots:
            axes.scatter(
                other.cost.intensity, other.achieved(machine, dtype), s=22, color=other.color, alpha=0.25
            )
        height = dot.achieved(machine, dtype)
        roof = dot.cost.flops / bound.seconds
        axes.plot([dot.cost.intensity] * 2, [height, roof], color=WASTE, linewidth=5, zorder=2)
        axes.scatter(dot.cost.intensity, height, s=90, color=dot.color, zorder=4)
        return picture


def forecast_of(
    config: ModelConfig, machine: Machine, *, weights: str, batch: int, context: int, model: str = ""
) -> Picture:
    """Draw the bounds of a prefill of `context` tokens and of a decode step of `batch` requests of that length.

    `weights` is the format in which weights are stored. They are multiplied in float32 if they are float32 or if the
    machine is a CPU, and in bfloat16 otherwise.
    """
    dtype = "float32" if weights == "float32" or machine.device == "cpu" else "bfloat16"
    width: dict[str, Any] = {
        "bytes_per_weight": BYTES_PER_WEIGHT[weights],
        "bytes_per_kv": 4 if dtype == "float32" else 2,
    }
    prefill = prefill_cost(config, context, **width)
    decode = decode_cost(config, context - 1, batch, **width)
    dots = [Dot("prefill", prefill, PREFILL), Dot("decode", decode, DECODE)]
    with style():
        picture = Picture(figsize=(9.6, 4.3))
        axes, notes = picture.subplots(1, 2, width_ratios=[1.5, 1])
        axes.set_title(f"{model} on {machine.name.removeprefix('NVIDIA ')}")
        _roof(axes, machine, dtype, dots, INTENSITY)
        _dots(axes, machine, dtype, dots)
        steps = [time_at(dot.cost, machine, dtype) for dot in dots]
        rates = [context / steps[0].seconds, batch / steps[1].seconds]
        _say(notes, 0.99, f"Prefill: {context:,} tokens of one prompt", PREFILL, bold=True)
        _say(notes, 0.91, f"{_seconds(steps[0].seconds)}, bound by {steps[0].bound}")
        _say(notes, 0.84, f"{_number(rates[0])} tokens/s · {_number(prefill.intensity)} FLOP/byte")
        _say(notes, 0.71, f"Decode: {batch:,} × 1 token, context {context:,}", DECODE, bold=True)
        _say(notes, 0.63, f"{_seconds(steps[1].seconds)} per step, bound by {steps[1].bound}")
        _say(notes, 0.56, f"{_number(rates[1])} tokens/s, {_number(rates[1] / batch)} for each request")
        _say(notes, 0.49, f"{_number(decode.intensity)} FLOP/byte; ridge at {_number(ridge(machine, dtype))}")
        _say(notes, 0.34, f"The decode step's {_bytes(decode.bytes)}", bold=True)
        _shares(notes, decode)
        _fit(notes, config, machine, batch * context, width)
        return picture


def calculator(models: Mapping[str, ModelConfig], machines: Mapping[str, Machine]) -> Explorer:
    """Return `forecast_of` with a control for each of its arguments."""

    def draw(model: str, machine: str, weights: str, batch: int, context: int) -> Picture:
        return forecast_of(
            models[model], machines[machine], weights=weights, batch=batch, context=context, model=model
        )

    return Explorer(
        draw,
        model=list(models),
        machine=list(machines),
        weights=widgets.Dropdown(options=list(BYTES_PER_WEIGHT), value="bfloat16", **_labelled("weights")),
        batch=_powers("batch (requests)", 0, 10, first=1),
        context=_powers("context (tokens)", 4, 17, first=1024),
    )


def times_of(
    decode: Sequence[Timing], prefill: Sequence[Timing], machine: Machine, dtype: str, *, context: int
) -> Picture:
    """Draw the measured times of decode steps by their requests, and of prefills by their tokens, with the bounds."""
    with style():
        picture = Picture(figsize=(8.6, 3.8))
        left, right = picture.subplots(1, 2, sharey=True)
        left.set_title(f"Decode: a step, {context} tokens of context")
        left.set_xlabel("requests in the batch")
        left.set_ylabel("time of a step (ms)")
        right.set_title("Prefill: a whole prompt")
        right.set_xlabel("tokens of the prompt")
        for axes, timings, color in ((left, decode, DECODE), (right, prefill, PREFILL)):
            sizes = [timing.size for timing in timings]
            bounds = [time_at(timing.cost, machine, dtype) for timing in timings]
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.plot(sizes, [1e3 * t.seconds for t in timings], "o-", color=color, label="measured")
            axes.plot(sizes, [1e3 * t.overhead for t in timings], color=WASTE, label="overhead alone", lw=3)
            axes.plot(
                sizes, [1e3 * b.seconds for b in bounds], "--", color=INK, label="the roofline's bound", lw=1
            )
            crossing = next((s for s, b in zip(sizes, bounds, strict=True) if b.bound == "compute"), None)
            if crossing is not None and crossing > sizes[0]:
                axes.axvline(crossing, color=FAINT, linewidth=0.8, linestyle=":")
                axes.text(crossing * 1.06, 0.02, "ridge", color=FAINT, transform=axes.get_xaxis_transform())
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.minorticks_off()
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.legend(loc="upper left", frameon=True, framealpha=1, edgecolor="none")
        return picture


def _span(machine: Machine, dtype: str, dots: Sequence[Dot]) -> tuple[float, float]:
    """Return an x axis that has room for the ridge, the dots and their names."""
    places = [ridge(machine, dtype), *(dot.cost.intensity for dot in dots)]
    return min(places) / 8, max(places) * 8


def _roof(axes: Axes, machine: Machine, dtype: str, dots: Sequence[Dot], span: tuple[float, float]) -> None:
    """Draw the two roofs, the ridge between them, and axes that have room for the dots."""
    peak, corner = machine.rate(dtype), ridge(machine, dtype)
    low, high = span
    floor = low * machine.read_bandwidth
    heights = [dot.achieved(machine, dtype) for dot in dots]
    bottom, top = min([floor / 3, *(h / 6 for h in heights)]), max([peak * 6, *(h * 2 for h in heights)])
    axes.plot([low, corner, high], [floor, peak, peak], color=INK, linewidth=1.6, zorder=1)
    axes.axvspan(low, corner, color=KV, alpha=0.12, lw=0, zorder=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(bottom, top)
    axes.set_xlabel("arithmetic intensity (FLOP per byte)")
    axes.set_ylabel("FLOP per second")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.minorticks_off()
    above: dict[str, Any] = {"fontsize": 9.5, "transform": axes.get_xaxis_transform(), "va": "top"}
    axes.text(low * SLACK, 0.98, "memory-bound", **above)
    axes.text(high / SLACK, 0.98, "compute-bound", ha="right", **above)
    axes.text(high / SLACK, peak * SLACK, f"{_rate(peak)}FLOP/s", ha="right", va="bottom", fontsize=9.5)
    middle = math.sqrt(low * corner)
    axes.annotate(
        f"{_bytes(machine.read_bandwidth)}/s",
        (middle, middle * machine.read_bandwidth),
        (-6, 4),
        textcoords="offset points",
        ha="right",
        fontsize=9.5,
    )
    axes.text(corner, peak * SLACK, f"ridge: {corner:,.0f}", ha="center", va="bottom", fontsize=9.5)


def write_doubts(axes: Axes, machine: Machine, dtype: str, dots: Iterable[Dot]) -> None:
    """Write why the measurement of the machine cannot be trusted, and the remedy. Write nothing if it can."""
    doubts = []
    for name in machine.doubtful:
        if name in ("read", dtype):
            low, high = machine.spread[name]
            doubts.append(f"Doubtful: {name} scattered by a factor of {high / low:.1f}.")
    if any(dot.achieved(machine, dtype) > 1.1 * machine.rate(dtype) for dot in dots):
        doubts.append("A dot is above the roof: the machine was busy when its roof was measured.")
    if doubts:
        text = "\n".join([*doubts, "Measure it again on an idle machine: this_machine(refresh=True)"])
        axes.text(0.98, 0.03, text, color=REJECTED, ha="right", fontsize=9, transform=axes.transAxes)


def _dots(axes: Axes, machine: Machine, dtype: str, dots: Iterable[Dot]) -> None:
    """Draw the dots, each with its name below it: to the right, or to the left if its right neighbour is close."""
    placed = [(dot.cost.intensity, dot.achieved(machine, dtype), dot) for dot in dots]
    for x, y, dot in placed:
        axes.scatter(x, y, s=70, color=dot.color, zorder=3)
        crowded = any(x < other < 20 * x for other, _, _ in placed)
        to_left = crowded or x > INTENSITY[1] / 20  # never out of the axes
        axes.annotate(
            dot.name,
            (x, y),
            (-7 if to_left else 7, -14),
            textcoords="offset points",
            fontweight="bold",
            ha="right" if to_left else "left",
            path_effects=[withStroke(linewidth=3, foreground=PAPER)],
        )


def _say(
    axes: Axes, height: float, text: str, dot: str = "", *, color: str = INK, bold: bool = False
) -> None:
    """Write a line of the text next to a roofline. `dot` is the colour of the dot that it describes."""
    if dot:
        axes.plot(0.02, height - 0.025, "o", ms=8, color=dot, clip_on=False)
    weight = "bold" if bold else "normal"
    said = axes.text(0.07 if dot else 0, height, text, color=color, fontweight=weight, fontsize=9.5, va="top")
    said.set_in_layout(False)  # a longer number must not move the roofline


def _shares(axes: Axes, cost: Cost) -> None:
    """Draw a bar of a step's bytes: the share of the weights, and that of the KV cache."""
    kv = (cost.kv_read_bytes + cost.kv_write_bytes) / cost.bytes
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.axis("off")
    axes.barh(0.2, 1 - kv, height=0.09, color=FAINT)
    axes.barh(0.2, kv, left=1 - kv, height=0.09, color=KV)
    axes.text(0, 0.13, f"weights {1 - kv:.0%}", fontsize=9, va="top")
    axes.text(1, 0.13, f"KV cache {kv:.0%}", fontsize=9, va="top", ha="right")


def _fit(axes: Axes, config: ModelConfig, machine: Machine, tokens: int, width: Mapping[str, Any]) -> None:
    """Write whether weights and cache fit into the machine's memory."""
    kv = tokens * config.kv_bytes_per_token(width["bytes_per_kv"])
    need = config.num_parameters * width["bytes_per_weight"] + kv
    text = f"needs {_number(need / 2**30)} of {machine.memory_bytes / 2**30:,.0f} GiB"
    fits = need <= machine.memory_bytes
    _say(
        axes,
        0.04,
        f"Fits: {text}" if fits else f"Does not fit: {text}",
        color=INK if fits else REJECTED,
        bold=not fits,
    )


def _powers(label: str, low: int, high: int, *, first: int) -> widgets.Widget:
    """Return a slider over powers of two."""
    options = [(f"{2**i:,}", 2**i) for i in range(low, high + 1)]
    return widgets.SelectionSlider(options=options, value=first, **_labelled(label))


def _labelled(label: str) -> dict[str, Any]:
    return {
        "description": label,
        "style": {"description_width": "11em"},
        "layout": widgets.Layout(width="34em"),
    }


def _seconds(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f} s"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def _bytes(value: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e6:.3g} MB"


def _rate(value: float) -> str:
    """Return a rate with its unit's prefix: 5.4e9 -> "5.4 G"."""
    for unit, size in (("P", 1e15), ("T", 1e12)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e9:.3g} G"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.0f}"
