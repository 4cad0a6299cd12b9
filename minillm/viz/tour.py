"""The tour's picture: one bar a rung, each as long as its tokens per second, and what it gained on the last."""

from collections.abc import Mapping, Sequence
from typing import Any

from minillm.measure.timing import factor_text
from minillm.viz.style import DECODE, FAINT, INK, PREFILL, Picture, quiet, style


def figure_of(report: Mapping[str, Any]) -> Picture:
    """Draw a tour report (the content of tour.json): throughput on the left, the two latencies on the right."""
    rungs: Sequence[Mapping[str, Any]] = report["rungs"]
    labels = [rung["name"] for rung in rungs]
    y = range(len(rungs))
    with style():
        figure = Picture(figsize=(10, 1.3 + 0.5 * len(rungs)))
        left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=[2.2, 1, 1])
        left.set_title("Output tokens per second")
        _bars(left, y, rungs, "tokens_per_second", DECODE, _throughput)
        left.set_yticks(list(y), labels)
        left.invert_yaxis()
        middle.set_title("Time to first token")
        _bars(middle, y, rungs, "ttft_s", PREFILL, lambda rung: _seconds(rung["ttft_s"]))
        right.set_title("Time per token after it")
        _bars(right, y, rungs, "seconds_per_token", DECODE, lambda rung: _seconds(rung["seconds_per_token"]))
        work, machine = report["workload"], report["machine"]
        figure.suptitle(
            f"{work['num_prompts']} prompts, up to {work['max_tokens']} tokens each · {report['model']}, "
            f"{report['dtype']} · {machine['machine']} · {machine['date'][:10]}",
            fontsize=9,
            color=FAINT,
            x=0.01,
            ha="left",
        )
        return figure


def _bars(axes: Any, y: range, rungs: Sequence[Mapping[str, Any]], key: str, color: str, label: Any) -> None:
    values = [rung.get(key) or 0 for rung in rungs]
    axes.barh(y, values, color=color, height=0.62)
    axes.set_xlim(0, max([*values, 1e-9]) * 1.35)
    for i, rung in enumerate(rungs):
        text = label(rung) if rung.get(key) is not None else f"not run: {rung['skipped']}"
        axes.text(values[i], i, " " + text, va="center", fontsize=9, color=INK if rung.get(key) else FAINT)
    quiet(axes)
    axes.tick_params(labelleft=axes.get_subplotspec().is_first_col())


def _throughput(rung: Mapping[str, Any]) -> str:
    factor = factor_text(rung["factor"])
    return f"{rung['tokens_per_second']:,.0f}" + (f"  ({factor})" if factor else "")


def _seconds(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"
