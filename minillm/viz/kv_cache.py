"""Chapter 03's pictures: the work of a step, the time of a token, and the memory of the cache.

Each is drawn from the records of a run (`LLM(trace=True)`), from its cache, or from a model's numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import ipywidgets as widgets
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator

from minillm.config import ModelConfig
from minillm.measure.costs import visible_pairs
from minillm.measure.known_gpus import KNOWN_GPUS
from minillm.measure.known_models import KNOWN_MODELS
from minillm.measure.trace import ScheduledRequest, StepRecord, Trace
from minillm.viz.style import DECODE, FAINT, INK, KV, PREFILL, WASTE, Picture, end_labels, quiet, style
from minillm.viz.widget import Explorer

BYTES = {"FP32": 4.0, "BF16": 2.0, "FP8": 1.0, "INT4": 0.5}  # of one number in the cache, scales not counted


def work(trace: Trace) -> list[ScheduledRequest]:
    """Return the part of each step. Raises ValueError if the trace has more than one request, or none."""
    parts = [part for step in trace.of(StepRecord) for part in step.scheduled]
    if len(names := {part.request_id for part in parts}) != 1:
        raise ValueError(f"This picture shows one request. The trace has {len(names)}: {sorted(names)}")
    return parts


def work_figure(traces: Mapping[str, Trace], step: int) -> Picture:
    """Draw the attention matrix of one request in each trace after step number `step`, counted from 1.

    A row is a token's query and a column a token's key.
    """
    runs = {name: work(trace) for name, trace in traces.items()}
    size = max(part.num_computed_tokens + part.num_tokens for steps in runs.values() for part in steps)
    colors = ListedColormap(["#FFFFFF", KV, PREFILL, DECODE])
    with style():
        figure = Picture(figsize=(9, 3.9))
        panels = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0]
        for axes, (name, steps) in zip(panels, runs.items(), strict=True):
            done = steps[:step]
            axes.imshow(cells(done[-1], size), cmap=colors, vmin=0, vmax=3, aspect="auto")
            axes.set_title(name)
            last, so_far = pairs(done[-1]), sum(map(pairs, done))
            ended = f"ended at step {len(steps)}: " if step > len(steps) else ""
            axes.set_xlabel(f"key (token)\n{ended}{last:,} cells now, {so_far:,} so far")
        panels[0].set_ylabel("query (token)")
        figure.legend(
            handles=[
                Patch(color=PREFILL, label=f"computed in step {step}: prefill"),
                Patch(color=DECODE, label=f"computed in step {step}: decode"),
                Patch(color=KV, label="earlier step: K and V are in the cache"),
            ],
            loc="outside upper left",
            ncols=3,
        )
        return figure


def cells(part: ScheduledRequest, size: int) -> list[list[int]]:
    """Return the matrix after a step: 0 nothing, 1 an earlier step, 2 computed by this prefill, 3 by this decode."""
    now = 2 if part.kind == "prefill" else 3
    end = part.num_computed_tokens + part.num_tokens
    return [
        [0 if j > i or i >= end else now if i >= part.num_computed_tokens else 1 for j in range(size)]
        for i in range(size)
    ]


def pairs(part: ScheduledRequest) -> int:
    """Return the number of cells of the attention matrix that a step computes."""
    return visible_pairs(part.num_tokens, part.num_computed_tokens)


def token_times(trace: Trace) -> dict[int, float]:
    """Return the seconds of each step by the number of tokens in the text after it."""
    return {
        step.scheduled[0].num_computed_tokens + step.num_tokens(): step.end - step.start
        for step in trace.of(StepRecord)
    }


def time_figure(naive: Trace, cached: Trace, position: int) -> Picture:
    """Draw the milliseconds of each step of one request as the text grows, and the sums up to `position` tokens."""
    without, with_cache = token_times(naive), token_times(cached)
    at = max(p for p in without if p <= max(position, min(without)))
    with style():
        figure = Picture(figsize=(9, 3.6))
        left, right = figure.subplots(1, 2, width_ratios=[2.2, 1])
        left.set_title("Time of each step")
        for times, color, name in ((without, PREFILL, "no cache"), (with_cache, DECODE, "KV cache")):
            left.plot(list(times), [t * 1e3 for t in times.values()], ".", ms=4, color=color, alpha=0.35)
            left.plot(
                [at], [times[at] * 1e3], "o", ms=8, color=color, label=f"{name}: {times[at] * 1e3:.1f} ms"
            )
        left.axvline(at, color=FAINT, lw=0.8, zorder=0)
        left.set_xlabel("tokens in the text")
        left.set_ylabel("milliseconds")
        usual = _robust_top([*without.values(), *with_cache.values()])  # with room for the legend above it
        left.set_ylim(0, 1e3 * max(1.45 * usual, 1.1 * without[at], 1.1 * with_cache[at]))
        title = f"at {at} tokens: ×{without[at] / with_cache[at]:.1f}"
        left.legend(loc="upper left", title=title, frameon=True, framealpha=1, edgecolor="none")
        right.set_title("All steps so far")
        totals = [sum(t for p, t in times.items() if p <= at) for times in (without, with_cache)]
        _bars(right, ["no cache", "KV cache"], totals, [PREFILL, DECODE], [_seconds(t) for t in totals])
        right.set_xlim(0, 1.4 * max(sum(times.values()) for times in (without, with_cache)))  # they grow
        return figure


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.0f} ms"


def _robust_top(values: Sequence[float]) -> float:
    """Return the largest value without the top 2 %, so that one slow step does not flatten the picture."""
    return sorted(values)[int(0.98 * (len(values) - 1))]


def _bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], colors: Sequence[str], labels: Sequence[str]
) -> None:
    axes.barh(range(len(names)), values, color=colors, height=0.5)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.4)
    for y, (value, label) in enumerate(zip(values, labels, strict=True)):
        axes.text(value, y, " " + label, va="center", fontsize=9, color=INK)
    quiet(axes)


def memory_figure(
    model: str, layers: int, kv_heads: int, head_dim: int, tokens: int, requests: int, dtype: str, gpu: str
) -> Picture:
    """Draw the cache of `requests` texts of `tokens` tokens each, `model`'s weights (16 bits), and a GPU's memory.

    There is one bar with as many KV heads as query heads (MHA), one with `kv_heads`, and one with a single KV head.
    """
    config, memory = KNOWN_MODELS[model], KNOWN_GPUS[gpu].memory_bytes
    weights = 2 * config.num_parameters
    as_set = f"as set: {kv_heads} KV head{'s' * (kv_heads > 1)}"
    rows = {
        f"MHA: {config.num_attention_heads} KV heads": config.num_attention_heads,
        as_set: kv_heads,
        "MQA: 1 KV head": 1,
    }
    caches = {
        name: replace(
            config,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            head_dim=head_dim,
        ).kv_bytes_per_token(1)
        * BYTES[dtype]
        * tokens
        * requests
        for name, heads in rows.items()
    }
    with style():
        figure = Picture(figsize=(9, 2.9))
        axes = figure.subplots()
        axes.set_title(f"{requests} × {tokens:,} tokens in {dtype}: {_size(caches[as_set])} of KV cache")
        far = max([*caches.values(), memory - weights]) + weights
        for y, cache in enumerate(caches.values()):
            axes.barh(y, weights / 1e9, color=FAINT, height=0.5)
            axes.barh(y, cache / 1e9, left=weights / 1e9, color=KV, height=0.5)
            fits = weights + cache <= memory
            text = f" {_size(cache)}" + ("" if fits else ": does not fit")
            axes.text((weights + cache) / 1e9, y, text, va="center", fontsize=9, color=INK)
        axes.axvline(memory / 1e9, color=INK, lw=1.5)
        axes.text(memory / 1e9, -0.62, f" {gpu}: {memory / 2**30:.0f} GiB", fontsize=9, va="center")
        axes.set_ylim(2.5, -0.85)
        axes.set_yticks(range(3), list(rows))
        axes.set_xlim(0, far * 1.3 / 1e9)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("GB")
        handles = [
            Patch(color=FAINT, label=f"weights of {model}, 16 bits"),
            Patch(color=KV, label="KV cache"),
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=2)
        return figure


def _size(number: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / 1e6:,.1f} MB"


def memory_explorer(model: str = "llama_3_8b", gpu: str = "A100") -> Explorer:
    """Return `memory_figure` under sliders. Choosing a model sets its layers, KV heads and head_dim.

    There are at most as many KV heads as the model has query heads.
    """
    config = KNOWN_MODELS[model]
    lengths = [2**i for i in range(9, 18)]
    look = {"style": {"description_width": "11em"}, "layout": widgets.Layout(width="34em")}
    menu = widgets.Dropdown(options=list(KNOWN_MODELS), value=model, description="model", **look)
    tokens = widgets.SelectionSlider(
        options=[(f"{n:,}", n) for n in lengths], value=8192, description="tokens in each", **look
    )
    kv_heads = widgets.IntSlider(
        min=1,
        max=config.num_attention_heads,
        value=config.num_key_value_heads,
        description="kv heads",
        **look,
    )
    dtypes = widgets.Dropdown(options=list(BYTES), value="BF16", description="dtype", **look)
    gpus = widgets.Dropdown(options=list(KNOWN_GPUS), value=gpu, description="gpu", **look)
    explorer = Explorer(
        memory_figure,
        model=menu,
        layers=(1, 128, config.num_hidden_layers),
        kv_heads=kv_heads,
        head_dim=widgets.SelectionSlider(
            options=[32, 64, 96, 128, 192, 256], value=config.head_dim, description="head dim", **look
        ),
        tokens=tokens,
        requests=(1, 256, 32),
        dtype=dtypes,
        gpu=gpus,
    )

    def preset(change: Mapping[str, str]) -> None:
        chosen = KNOWN_MODELS[change["new"]]
        kv_heads.max = chosen.num_attention_heads
        explorer.set(
            layers=chosen.num_hidden_layers, kv_heads=chosen.num_key_value_heads, head_dim=chosen.head_dim
        )

    menu.observe(preset, names="value")
    return explorer


def rows_figure(
    config: ModelConfig, lengths: Sequence[int], max_model_len: int, bytes_per_element: int
) -> Picture:
    """Draw each request's part of a contiguous cache: the memory of its tokens, and what was never used."""
    per_token = config.kv_bytes_per_token(bytes_per_element) / 1e6  # MB
    used = [length * per_token for length in lengths]
    unused = [(max_model_len - length) * per_token for length in lengths]
    share = sum(unused) / (sum(used) + sum(unused))
    with style():
        figure = Picture(figsize=(9, 1.4 + 0.19 * len(lengths)))
        axes = figure.subplots()
        axes.set_title(f"{share:.0%} of the reserved memory was never used")
        y = range(len(lengths))
        axes.barh(y, used, color=KV, height=0.75, label="keys and values of the request")
        axes.barh(y, unused, left=used, color=WASTE, height=0.75, label="reserved, never used")
        axes.invert_yaxis()
        axes.set_yticks([])
        axes.set_ylabel("request")
        axes.set_xlabel(f"MB reserved per request ({max_model_len:,} tokens)")
        figure.legend(loc="outside lower left", ncols=2)
        return figure


def speedup_figure(lengths: Sequence[int], naive: Sequence[float], cached: Sequence[float]) -> Picture:
    """Draw the time of one step at each length of the text, without and with a cache, on two logarithmic axes.

    Both times are in seconds.
    """
    with style():
        figure = Picture(figsize=(9, 3.4))
        axes = figure.subplots()
        axes.set_title("One step, by the length of the text")
        ends: dict[str, float] = {}
        for times, color, name in ((naive, PREFILL, "no cache"), (cached, DECODE, "KV cache")):
            axes.plot(lengths, [t * 1e3 for t in times], "o-", ms=4, color=color)
            ends[name] = times[-1] * 1e3
        for length, slow, fast in zip(lengths, naive, cached, strict=True):
            axes.annotate(
                f"×{slow / fast:.1f}", (length, slow * 1e3), (0, 8), textcoords="offset points", ha="center"
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
        axes.set_xlim(lengths[0] / 1.3, lengths[-1] * 2)
        axes.set_ylim(min(cached) * 0.7e3, max(naive) * 1.9e3)
        end_labels(axes, lengths[-1], ends)
        axes.set_xlabel("tokens in the text")
        axes.set_ylabel("milliseconds")
        return figure
