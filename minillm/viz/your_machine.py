"""Chapter 00's picture: the roofline of this machine, with measured steps below it.

A roofline (Williams, Waterman, Patterson, CACM 52(4), 2009) has two logarithmic axes: the operations that a step does
for each byte it reads, and the operations per second that the machine reaches in it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter

from minillm.config import ModelConfig
from minillm.measure.machine import Machine
from minillm.measure.roofline import ridge, time_at
from minillm.measure.trace import Trace
from minillm.viz.memory_wall import Dot, steps_of, write_doubts
from minillm.viz.style import DECODE, INK, KV, PREFILL, WASTE, Picture, style

LIMITS = {"memory": "Reading the bytes", "compute": "Computing"}


def dots_of(traces: Mapping[str, Trace], config: ModelConfig, bytes_per_number: int) -> list[Dot]:
    """Return a measured decode step of each trace, the one with most requests, and the last trace's largest prefill.

    Of several decode steps with most requests, it is the one with the median time. The dots have the traces' names.
    """
    dots = []
    for name, trace in traces.items():
        steps = steps_of(trace, config, bytes_per_number)
        decode = [dot for dot in steps if dot.color == DECODE]
        most = max(dot.cost.linear_flops for dot in decode)
        full = sorted((d for d in decode if d.cost.linear_flops == most), key=lambda dot: dot.seconds or 0)
        dots.append(replace(full[len(full) // 2], name=name))
    prefill = max((dot for dot in steps if dot.color == PREFILL), key=lambda dot: dot.cost.flops)
    return [*dots, replace(prefill, name="prefill")]


def bounds_of(dots: Sequence[Dot], machine: Machine, dtype: str) -> list[str]:
    """Return a line of numbers for each measured dot: its intensity, its time and its bound."""
    lines = []
    for dot in dots:
        bound, seconds = time_at(dot.cost, machine, dtype), dot.seconds or 0.0
        lines.append(
            f"{dot.name}: {dot.cost.intensity:.1f} operations per byte, {seconds * 1e3:.2f} ms. "
            f"{LIMITS[bound.bound]} takes at least {bound.seconds * 1e3:.2f} ms, "
            f"{seconds / bound.seconds:.1f} times less."
        )
    return lines


def machine_figure(machine: Machine, dtype: str, dots: Sequence[Dot]) -> Picture:
    """Draw the two limits of a machine for products in `dtype`, and how far below them each measured dot is."""
    with style():
        picture = Picture(figsize=(9, 4.8))
        axes = picture.subplots()
        axes.set_title(f"{machine.name}, {dtype}")
        _scale(axes, machine, dtype, dots)
        _limits(axes, machine, dtype)
        for dot in dots:
            _dot(axes, machine, dtype, dot)
        write_doubts(axes, machine, dtype, dots)
        return picture


def _scale(axes: Axes, machine: Machine, dtype: str, dots: Sequence[Dot]) -> None:
    """Set logarithmic axes with room for the ridge, all dots and their names."""
    corner, peak = ridge(machine, dtype), machine.rate(dtype)
    places = [corner, *(dot.cost.intensity for dot in dots)]
    heights = [dot.achieved(machine, dtype) for dot in dots]
    low = min(places) / 5
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, max(places) * 6)
    axes.set_ylim(
        min([low * machine.read_bandwidth / 3, *(h / 12 for h in heights)]), max([peak, *heights]) * 8
    )
    axes.set_xlabel("operations for each byte")
    axes.set_ylabel("operations per second")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.minorticks_off()


def _limits(axes: Axes, machine: Machine, dtype: str) -> None:
    """Draw the slope that the memory allows, the roof that the cores allow, and what they are called."""
    (low, high), corner, peak = axes.get_xlim(), ridge(machine, dtype), machine.rate(dtype)
    slow, fast = machine.spread.get("read", (machine.read_bandwidth,) * 2)
    least, most = machine.spread.get(dtype, (peak, peak))
    doubtful = {"read", dtype} & set(machine.doubtful)
    xs = [low, corner, high]
    axes.fill_between(
        xs, [slow * low, least, least], [fast * low, most, most], color=WASTE, alpha=0.6, lw=0, zorder=0
    )
    axes.plot(
        xs, [machine.read_bandwidth * low, peak, peak], "--" if doubtful else "-", color=INK, lw=1.8, zorder=2
    )
    axes.axvspan(low, corner, color=KV, alpha=0.14, lw=0, zorder=0)
    axes.axvspan(corner, high, color=PREFILL, alpha=0.10, lw=0, zorder=0)
    of_axes = {"transform": axes.get_xaxis_transform(), "va": "top", "ha": "center", "fontweight": "bold"}
    axes.text(math.sqrt(low * corner), 0.97, "memory is the limit", **of_axes)  # type: ignore[arg-type]
    axes.text(math.sqrt(corner * high), 0.97, "the cores are the limit", **of_axes)  # type: ignore[arg-type]
    middle = math.sqrt(low * corner)
    bandwidth = f"{machine.read_bandwidth / 1e9:,.0f} GB/s"
    axes.annotate(
        bandwidth,
        (middle, middle * machine.read_bandwidth),
        (-8, 6),
        textcoords="offset points",
        ha="right",
    )
    axes.text(
        math.sqrt(corner * high), peak * 1.25, f"{EngFormatter(places=0)(peak)} operations/s", ha="center"
    )


def _dot(axes: Axes, machine: Machine, dtype: str, dot: Dot) -> None:
    """Draw a step with its name, and its distance to the limit."""
    x, y = dot.cost.intensity, dot.achieved(machine, dtype)
    bound = time_at(dot.cost, machine, dtype).seconds
    axes.plot([x, x], [y, dot.cost.flops / bound], color=dot.color, lw=2, ls=":", zorder=2)
    axes.scatter(x, y, s=80, color=dot.color, zorder=4)
    times = f"{1e3 * (dot.seconds or bound):.2f} ms, {(dot.seconds or bound) / bound:.1f} × the bound"
    above = y > machine.rate(dtype)  # impossible: then its name must not be on the roof's
    place = {"textcoords": "offset points", "ha": "center", "va": "bottom" if above else "top"}
    shifts = (22, 8) if above else (-8, -22)
    axes.annotate(dot.name, (x, y), (0, shifts[0]), fontweight="bold", **place)  # type: ignore[arg-type]
    axes.annotate(times, (x, y), (0, shifts[1]), fontsize=9, **place)  # type: ignore[arg-type]
