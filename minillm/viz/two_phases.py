"""Chapter 01's pictures: arrival times of tokens, attention by head, RoPE, sampling, and the rates of both phases.

Each function draws a picture from a trace or from numbers. The chapter puts sliders on them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Circle, Patch
from matplotlib.ticker import LogLocator
from torch import Tensor

from minillm.llm import LLM
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
    """One token of a request: its arrival, its wait after the token before it, and the work of its step.

    `time` and `wait` are in seconds. `time` counts from the arrival of the request, and the first wait is the TTFT.
    """

    token_id: int
    time: float
    wait: float
    kind: Kind
    num_computed: int


def arrivals_of(trace: Trace, request_id: str) -> list[Arrival]:
    """Return the tokens of one request in a trace, in order. Raises KeyError if the trace does not have the request."""
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


def fastest_run(llm: LLM, prompt: str, params: SamplingParams, tries: int) -> list[Arrival]:
    """Return the tokens of the fastest of `tries` runs. Other work of the computer can only make a run slower."""
    outputs = [llm.generate(prompt, params)[0] for _ in range(tries)]
    runs = [arrivals_of(llm.trace, output.request_id) for output in outputs]
    return min(runs, key=lambda run: run[-1].time)


def phase_times(
    llm: LLM, token_ids: Sequence[int], lengths: Sequence[int], tokens: int, rounds: int
) -> dict[int, tuple[float, float]]:
    """Return the TTFT and the time of a later token in seconds for each prompt length: medians over the rounds.

    The lengths alternate in each round, so that a slow minute of the computer slows all of them. One more round at the
    start warms up and does not count.
    """
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    runs: dict[int, list[list[Arrival]]] = {length: [] for length in lengths}
    for _ in range(rounds + 1):
        for length in lengths:
            done = llm.generate({"prompt_token_ids": list(token_ids[:length])}, params)[0]
            runs[length].append(arrivals_of(llm.trace, done.request_id))
    return {
        length: (
            median(run[0].wait for run in counted),
            median(token.wait for run in counted for token in run[1:]),
        )
        for length, (_, *counted) in runs.items()
    }


def arrivals(runs: Mapping[str, Sequence[Arrival]], tokens: int, text: str = "") -> Picture:
    """Draw the first `tokens` tokens of each run as bars on one time axis. `text` is their text."""
    end = max(run[-1].time for run in runs.values()) * 1e3
    with style():
        figure = Picture(figsize=(9.5, 1.5 + 0.75 * len(runs)))
        axes = figure.subplots()
        for row, run in enumerate(runs.values()):
            shown = run[:tokens]
            for token in shown:
                left = (token.time - token.wait) * 1e3
                color = PHASE_COLOR[token.kind]
                edge = 0.8 if token.wait * 1e3 > end / 100 else 0  # a narrow bar would be all edge
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
        said = " ".join(text.split())  # on one line, so that the bars stay where they are
        if len(said) > 60:
            said = said[-60:].partition(" ")[2]
        axes.set_title(f"{tokens} token{'s' * (tokens != 1)}" + (f": …{said}" if said else ""), fontsize=10)
        patches = [
            Patch(color=PREFILL, label="step that computes the whole text"),
            Patch(color=DECODE, label="step that computes one token"),
        ]
        figure.legend(handles=patches, loc="outside lower right", ncols=2, fontsize=9)
        return figure


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """Return softmax(mask(q k^T / sqrt(D))) of a whole text: q [T, H, D], k [T, H_kv, D] -> [H, T, T] float32."""
    num_tokens, num_heads, head_dim = q.shape
    k = k.repeat_interleave(num_heads // k.shape[1], dim=1)
    scores = torch.einsum("thd,shd->hts", q.float(), k.float()) / head_dim**0.5
    mask = causal_mask(num_tokens, num_tokens, None, q.device)
    weights: Tensor = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return weights


def attention_map(weights: Tensor, tokens: Sequence[str], layer: int, token: int) -> Picture:
    """Draw where one token looks in each head of a layer: a row per head, a column per token that it sees.

    `weights` [H, T, T] are the layer's. A row of the picture is row `token` of one head, and its sum is 1.
    """
    shades = LinearSegmentedColormap.from_list("attention", [PAPER, KV, DECODE])
    names = [printable(name) or "·" for name in tokens]
    rows, heads = weights[:, token].cpu(), len(weights)
    few = heads <= 16  # rows that are high enough for a number
    with style():
        figure = Picture(figsize=(9.4, 1.8 + (0.29 if few else 0.13) * heads))
        axes = figure.subplots()
        axes.imshow(rows.numpy(), cmap=shades, vmin=0, vmax=1, aspect="auto")
        axes.axvspan(token + 0.5, len(names) - 0.5, color=WASTE, lw=0)
        for head, column in (rows >= 0.1).nonzero().tolist() if few else []:
            share = float(rows[head, column])
            ink = PAPER if share > 0.6 else INK
            axes.text(column, head, f"{share:.0%}", ha="center", va="center", fontsize=8, color=ink)
        axes.set_xticks(
            range(len(names)), names, rotation=45, ha="left", rotation_mode="anchor", parse_math=False
        )
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.xaxis.tick_top()
        axes.get_xticklabels()[token].set_fontweight("bold")
        labelled = range(0, heads, 1 if few else 4)
        axes.set_yticks(labelled, [f"head {head}" for head in labelled], fontsize=9)
        axes.tick_params(length=0)
        axes.spines[:].set(visible=True, color=WASTE, linewidth=0.8)
        axes.set_xlabel("attention weight; a weight below 10 % has no number; grey: later tokens", fontsize=9)
        figure.suptitle(
            f"Layer {layer}: where token {token}, “{names[token]}”, looks",
            x=0.01,
            ha="left",
            fontsize=11,
            fontweight="bold",
            parse_math=False,
        )
        return figure


def attention_habits(layers: Sequence[Tensor]) -> dict[str, tuple[int, int, float]]:
    """Return the head that looks most at the first token, at the previous one and at itself: (layer, head, share).

    The share is the mean weight over the tokens from the third on. `layers` has the weights [H, T, T] of each layer.
    """
    weights = torch.stack(list(layers))[:, :, 2:]  # [L, H, T - 2, T]
    t = torch.arange(2, weights.shape[-1])
    places = {"the first token": torch.zeros_like(t), "the previous token": t - 1, "itself": t}
    found = {}
    for name, place in places.items():
        share = weights[:, :, t - 2, place].mean(-1)  # [L, H]
        layer, head = divmod(int(share.argmax()), share.shape[1])
        found[name] = layer, head, float(share[layer, head])
    return found


def rope_figure(frequencies: Sequence[float], query: int, key: int) -> Picture:
    """Draw how RoPE rotates each pair of a query at position `query` and of a key at position `key`.

    `frequencies` are the radians per position of each pair. Before the rotation, every pair is (1, 0).
    """
    cosines = [math.cos((query - key) * frequency) for frequency in frequencies]
    with style():
        figure = Picture(figsize=(9.4, 3.7))
        panels = figure.subplots(1, len(frequencies), squeeze=False)[0]
        for pair, (axes, frequency) in enumerate(zip(panels, frequencies, strict=True)):
            axes.add_patch(Circle((0, 0), 1, fill=False, color=WASTE))
            for position, color, width in ((key, KV, 6), (query, DECODE, 2.5)):
                x, y = math.cos(position * frequency), math.sin(position * frequency)
                axes.plot([0, x], [0, y], color=color, lw=width, solid_capstyle="round")
                axes.plot(x, y, "o", color=color, ms=width + 4)
            axes.set_xlim(-1.15, 1.15)
            axes.set_ylim(-1.15, 1.15)
            axes.set_aspect("equal")
            axes.tick_params(length=0)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            axes.set_title(f"pair {pair}: {math.degrees(frequency):.3g}° per token", fontsize=9, loc="center")
            apart = math.degrees(abs(query - key) * frequency)
            axes.set_xlabel(f"{apart:.3g}° apart: cosine {cosines[pair]:.3f}", fontsize=9)
        figure.suptitle(
            f"query at {query}, key at {key}, distance {query - key}: q·k = {sum(cosines):.3f}",
            x=0.01,
            ha="left",
            fontsize=11,
            fontweight="bold",
        )
        handles = [Patch(color=DECODE, label="query"), Patch(color=KV, label="key")]
        figure.legend(handles=handles, loc="outside lower right", ncols=2, fontsize=9)
        return figure


def sampling(
    logits: Tensor,
    tokens: Sequence[str],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Picture:
    """Draw the probabilities of the `len(tokens)` most likely tokens under these settings, from a row of logits [V]."""
    at = SamplingParams(temperature=temperature)
    full, kept = (_distribution(logits, params) for params in (at, _with(at, top_k, top_p)))
    best = logits.argsort(descending=True, stable=True)[: len(tokens)].tolist()
    count = int((kept > 0).sum())
    with style():
        figure = Picture(figsize=(8.5, 3.4))
        axes = figure.subplots()
        x = range(len(best))
        axes.bar(x, [kept[i].item() for i in best], color=DECODE, width=0.8, label="after top-k and top-p")
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
        axes.yaxis.set_major_formatter("{x:.3f}")  # of one width at every height, so that the bars stay
        axes.set_ylabel("probability")
        axes.set_title(f"{count:,} of {len(logits):,} tokens can be chosen")
        axes.legend(loc="upper right")
        return figure


def rates(times: Mapping[int, tuple[float, float]], machine: str = "") -> Picture:
    """Draw the tokens per second of both phases by prompt length, from what `phase_times` returns."""
    lengths = list(times)
    lines = {
        "prefill": [length / first for length, (first, _) in times.items()],
        "decode": [1 / later for _, later in times.values()],
    }
    with style():
        figure = Picture(figsize=(7.5, 3.2))
        axes = figure.subplots()
        for kind, color in PHASE_COLOR.items():
            axes.plot(lengths, lines[kind], "o-", color=color, lw=2)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_xticks(lengths, [str(length) for length in lengths])
        axes.minorticks_off()
        axes.set_xlim(lengths[0] * 0.85, lengths[-1] * 1.6)
        end_labels(axes, lengths[-1], {kind: lines[kind][-1] for kind in PHASE_COLOR})
        axes.set_xlabel("prompt (tokens)")
        axes.set_ylabel("tokens per second")
        axes.set_title(machine, fontsize=9, fontweight="normal", color=FAINT)
        return figure


def _with(params: SamplingParams, top_k: int, top_p: float) -> SamplingParams:
    return SamplingParams(temperature=params.temperature, top_k=top_k, top_p=top_p)


def _distribution(logits: Tensor, params: SamplingParams) -> Tensor:
    """Return the probabilities [V] from which the engine draws."""
    rows = [SamplingRow(params, 0, [], [])]
    return probabilities(process_logits(logits[None], rows), rows)[0]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms" if seconds < 0.1 else f"{seconds * 1e3:,.0f} ms"
