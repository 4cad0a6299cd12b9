"""Chapter 1's pictures: tokens arriving on a time axis, an attention map, what sampling cuts away, two rates.

Each is a function from a trace or from numbers to a picture; the chapter puts sliders on them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator
from torch import Tensor

from minillm.measure.trace import Kind, RequestAdded, StepRecord, TokenRecord, Trace
from minillm.ops import causal_mask
from minillm.sampling import SamplingParams, SamplingRow, probabilities, process_logits
from minillm.viz.style import (
    DECODE,
    FAINT,
    INK,
    KV,
    PAPER,
    PREFILL,
    WASTE,
    Picture,
    end_labels,
    printable,
    style,
)

PHASE_COLOR = {"prefill": PREFILL, "decode": DECODE}


@dataclass(frozen=True, slots=True)
class Arrival:
    """One token of a request: when it came, how long after the one before, and what the step that made it computed.

    `time` and `wait` are seconds, `time` counted from the request's arrival; the first token's wait is the TTFT.
    """

    token_id: int
    time: float
    wait: float
    kind: Kind
    num_computed: int


def arrivals_of(trace: Trace, request_id: str) -> list[Arrival]:
    """The tokens of one request in a trace, in order. Raises KeyError for a request that the trace does not have."""
    added = {record.request_id: record.time for record in trace.of(RequestAdded)}[request_id]
    found: list[Arrival] = []
    waiting: TokenRecord | None = None
    before, num_computed = added, 0
    for record in trace.for_request(request_id):  # a step's record comes after the token that it made
        if isinstance(record, TokenRecord):
            waiting = record
        elif isinstance(record, StepRecord):
            part = next((part for part in record.scheduled if part.request_id == request_id), None)
            if part is None:  # the step that preempted it
                continue
            num_computed += part.num_tokens
            if waiting is not None:
                wait = waiting.time - before
                found.append(Arrival(waiting.token_id, waiting.time - added, wait, part.kind, num_computed))
                before, num_computed, waiting = waiting.time, 0, None
    return found


def arrivals(runs: Mapping[str, Sequence[Arrival]], tokens: int, text: str = "") -> Picture:
    """The first `tokens` tokens of each run as bars on one time axis; `text` is what they say."""
    end = max(run[-1].time for run in runs.values()) * 1e3
    with style():
        figure = Picture(figsize=(9.5, 1.5 + 0.75 * len(runs)))
        axes = figure.subplots()
        for row, run in enumerate(runs.values()):
            shown = run[:tokens]
            for token in shown:
                left = (token.time - token.wait) * 1e3
                color = PHASE_COLOR[token.kind]
                edge = (
                    0.8 if token.wait * 1e3 > end / 100 else 0.15
                )  # a narrow bar would be all edge, and pale
                axes.barh(
                    row, token.wait * 1e3, left=left, height=0.5, color=color, edgecolor="white", lw=edge
                )
            computed = sum(token.num_computed for token in shown)
            label = f" {_ms(shown[-1].time)}, {computed:,} tokens computed"
            axes.text(shown[-1].time * 1e3, row, label, va="center", fontsize=9)
            axes.text(end * 0.004, row - 0.29, f"TTFT {_ms(shown[0].time)}", fontsize=9, color=FAINT)
        axes.set_yticks(range(len(runs)), list(runs))
        axes.set_ylim(len(runs) - 0.55, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, end * 1.34)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("time since the request arrived (ms)")
        said = " ".join(text.split())[-60:]  # on one line, so that the bars stay where they are
        axes.set_title(f"{tokens} token{'s' * (tokens != 1)}" + (f": …{said}" if said else ""), fontsize=10)
        patches = [
            Patch(color=PREFILL, label="step over the whole text"),
            Patch(color=DECODE, label="step over one token"),
        ]
        figure.legend(handles=patches, loc="outside lower right", ncols=2, fontsize=9)
        return figure


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """softmax(mask(q k^T / sqrt(D))) of a whole text: q [T, H, D], k [T, H_kv, D] -> [H, T, T] float32."""
    num_tokens, num_heads, head_dim = q.shape
    k = k.repeat_interleave(num_heads // k.shape[1], dim=1)
    scores = torch.einsum("thd,shd->hts", q.float(), k.float()) / head_dim**0.5
    mask = causal_mask(num_tokens, num_tokens, None, q.device)
    weights: Tensor = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return weights


def attention_map(weights: Tensor, tokens: Sequence[str], layer: int, head: int) -> Picture:
    """Which token (row) looks at which (column) in one head of a layer, next to all heads of the layer in small.

    `weights` [H, T, T] are the layer's; each row sums to 1 over the tokens up to it.
    """
    shades = LinearSegmentedColormap.from_list("attention", [PAPER, KV, DECODE, INK])
    names = [printable(token) or "·" for token in tokens]
    wide = 2 * math.ceil(math.sqrt(len(weights) / 8))  # columns of small maps: twice as many rows
    with style():
        figure = Picture(figsize=(9.4, 5.4))
        large, small = figure.subfigures(1, 2, width_ratios=[2.6, 1], squeeze=False)[0]
        axes = large.subplots()
        image = axes.imshow(weights[head].cpu().numpy(), cmap=shades, vmin=0, vmax=1)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=9, parse_math=False)
        axes.set_yticks(range(len(names)), names, fontsize=9, parse_math=False)
        axes.set_xlabel("key: the token that is looked at")
        axes.set_ylabel("query: the token that looks")
        axes.set_title(f"Layer {layer}, head {head}")
        _frame(axes, WASTE, 0.8)
        bar = large.colorbar(image, shrink=0.6, label="attention weight (a row sums to 1)")
        bar.outline.set_visible(False)
        small.suptitle("All heads of the layer", fontsize=9.5)
        panels = small.subplots(math.ceil(len(weights) / wide), wide, squeeze=False).flat
        for number, panel in enumerate(panels):
            panel.set_axis_off()
            if number < len(weights):
                panel.set_axis_on()
                panel.imshow(weights[number].cpu().numpy(), cmap=shades, vmin=0, vmax=1)
                panel.set_xticks([])
                panel.set_yticks([])
                weight = "bold" if number == head else "normal"
                panel.set_title(f"{number}", fontsize=9, fontweight=weight, pad=3)
                _frame(panel, INK if number == head else WASTE, 2.2 if number == head else 0.8)
        return figure


def _frame(axes: Axes, color: str, width: float) -> None:
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color=color, linewidth=width)


def sampling(
    logits: Tensor,
    tokens: Sequence[str],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Picture:
    """What the settings make of one row of logits [V]: the likeliest `len(tokens)` tokens, in that order."""
    at = SamplingParams(temperature=temperature)
    full, kept = (_distribution(logits, params) for params in (at, _with(at, top_k, top_p)))
    best = logits.argsort(descending=True, stable=True)[: len(tokens)].tolist()
    count = int((kept > 0).sum())
    with style():
        figure = Picture(figsize=(8.5, 3.4))
        axes = figure.subplots()
        x = range(len(best))
        axes.bar(x, [kept[i].item() for i in best], color=DECODE, width=0.8, label="drawn with")
        axes.bar(
            x,
            [full[i].item() for i in best],
            width=0.8,
            color="none",
            edgecolor=FAINT,
            lw=1,
            label="before top-k and top-p",
        )
        axes.set_xticks(x, tokens, rotation=60, ha="right", rotation_mode="anchor", fontsize=9)
        axes.tick_params(axis="x", length=0)
        axes.yaxis.set_major_formatter("{x:.3f}")  # of one width whatever the height, so that the bars stay
        axes.set_ylabel("probability")
        axes.set_title(f"{count:,} of {len(logits):,} tokens can be drawn")
        axes.legend(loc="upper right")
        return figure


def rates(rows: Sequence[Mapping[str, Any]], machine: str = "") -> Picture:
    """Tokens per second of both phases against the prompt's length: rows with "prompt", "prefill" and "decode"."""
    with style():
        figure = Picture(figsize=(7.5, 3.2))
        axes = figure.subplots()
        x = [row["prompt"] for row in rows]
        for kind, color in PHASE_COLOR.items():
            y = [row[kind] for row in rows]
            axes.plot(x, y, "o-", color=color, lw=2)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_xticks(x, [str(value) for value in x])
        axes.minorticks_off()
        axes.set_xlim(x[0] * 0.85, x[-1] * 1.6)
        end_labels(axes, x[-1], {kind: rows[-1][kind] for kind in PHASE_COLOR})
        axes.set_xlabel("prompt (tokens)")
        axes.set_ylabel("tokens per second")
        axes.set_title(machine, fontsize=9, fontweight="normal", color=FAINT)
        return figure


def _with(params: SamplingParams, top_k: int, top_p: float) -> SamplingParams:
    return SamplingParams(temperature=params.temperature, top_k=top_k, top_p=top_p)


def _distribution(logits: Tensor, params: SamplingParams) -> Tensor:
    """The probabilities [V] from which the engine draws."""
    rows = [SamplingRow(params, 0, [], [])]
    return probabilities(process_logits(logits[None], rows), rows)[0]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms" if seconds < 0.1 else f"{seconds * 1e3:,.0f} ms"
