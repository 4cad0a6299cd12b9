"""Every picture of the course can be read at normal size, in a light and in a dark theme."""

import io
from collections.abc import Callable

import matplotlib.image
import numpy
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

import torch

from minillm.config import ModelConfig
from minillm.course import expect
from minillm.measure.costs import decode_cost, prefill_cost
from minillm.measure.known_gpus import KNOWN_GPUS
from minillm.measure.known_models import KNOWN_MODELS
from minillm.viz import continuous_batching as batching
from minillm.viz import flash_attention as flash
from minillm.viz import fusion_and_graphs as graphs
from minillm.viz import int4_gptq_awq as four_bits
from minillm.viz import int8, kv_cache, memory_wall, two_phases, your_machine
from minillm.viz import paged_attention as paged
from minillm.viz import prefix_caching as prefix
from minillm.viz.launches import Call
from minillm.viz.memory_wall import Dot, Timing
from minillm.viz.stand_in import stand_in
from minillm.viz.style import DECODE, INK, PAPER, PREFILL, Picture, ink_on, style
from tests.viz import test_continuous_batching as batching_data
from tests.viz import test_flash_attention as flash_data
from tests.viz import test_fusion_and_graphs as graphs_data
from tests.viz import test_int4_gptq_awq as four_data
from tests.viz import test_kv_cache as kv_data
from tests.viz import test_paged_attention as paged_data
from tests.viz import test_prefix_caching as prefix_data
from tests.viz import test_serving as serving_data
from tests.viz import test_speculative_decoding as speculative_data
from tests.viz.readable import faults
from tests.viz.test_two_phases import runs

LLAMA, H100 = KNOWN_MODELS["llama_3_8b"], KNOWN_GPUS["H100"]
WORDS = ["<|endoftext|>", *("·there ·lived ·an ·extraordinarily ·tall ·fox ·by ·the ·sea ,").split()]
SAY: Callable[..., str] = lambda ids: " ".join(WORDS[1 + i % 9][1:] for i in ids)  # noqa: E731


def stalls() -> dict[str, batching.Trace]:
    run = batching_data.trace([[("a", "decode", 3, 1), ("long", "prefill", 0, 60)]], seconds=[0.1])
    run += [
        batching.TokenRecord(5.1, "a", 0, 1),
        batching.TokenRecord(5.2, "a", 1, 1),
        batching.TokenRecord(5.2, "long", 0, 1),
    ]
    return {f"budget {budget}": run for budget in (2048, 128, 32)}


def timings(config: ModelConfig, sizes: list[int]) -> list[Timing]:
    return [Timing(n, decode_cost(config, 100, n), 0.001 * n, 0.0005) for n in sizes]


def forecast(batch: int, context: int) -> Picture:
    return memory_wall.forecast_of(
        LLAMA, H100, weights="bfloat16", batch=batch, context=context, model="llama_3_8b"
    )


def history() -> paged.History:
    return paged.History.of(paged_data.FORK, 4)


PICTURES: dict[str, Callable[[], Picture]] = {
    "00 roofline": lambda: your_machine.machine_figure(
        H100,
        "bfloat16",
        [
            Dot("prefill", prefill_cost(LLAMA, 1000), PREFILL, 0.02),
            Dot("decode", decode_cost(LLAMA, 1000, 300), DECODE, 0.5),
        ],
    ),
    "01 arrivals": lambda: two_phases.arrivals(runs(), 3, "Once upon a time"),
    "01 attention": lambda: two_phases.attention_map(torch.eye(11).expand(8, 11, 11), WORDS, 0, 7),
    "01 attention, 32 heads": lambda: two_phases.attention_map(torch.eye(11).expand(32, 11, 11), WORDS, 0, 7),
    "01 RoPE": lambda: two_phases.rope_figure([1, 0.1, 0.01, 0.001], 10, 7),
    "01 sampling": lambda: two_phases.sampling(torch.arange(40.0) / 9, WORDS * 2, top_p=0.8),
    "01 rates": lambda: two_phases.rates(
        {n: (n / (300 + n), 1 / 290) for n in (16, 64)}, "a machine, 2 threads"
    ),
    "02 forecast": lambda: forecast(1, 1024),
    "02 forecast, dots close": lambda: forecast(1024, 1024),
    "02 a run": lambda: memory_wall.run_of(
        H100,
        "bfloat16",
        [Dot("step 8: 8 requests, a token each", decode_cost(LLAMA, 100, 8), DECODE, 0.02)],
        0,
    ),
    "02 times": lambda: memory_wall.times_of(
        timings(LLAMA, [1, 8, 64]), timings(LLAMA, [1, 64, 512]), H100, "bfloat16", context=128
    ),
    "03 work": lambda: kv_cache.work_figure(
        {"none": kv_data.NAIVE, "cache": kv_data.CACHED, "prompt in chunks of 4": kv_data.CHUNKS}, 2
    ),
    "03 time": lambda: kv_cache.time_figure(kv_data.NAIVE, kv_data.CACHED, 5),
    "03 bytes": lambda: kv_cache.memory_figure("llama_3_8b", 32, 8, 128, 8192, 32, "BF16", "A100"),
    "03 rows": lambda: kv_cache.rows_figure(LLAMA, [100, 200, 300], 1024, 4),
    "03 speed-up": lambda: kv_cache.speedup_figure([1, 8, 64, 900], [1, 2, 4, 90], [1.0, 1.1, 1.2, 1.3]),
    "04 map": lambda: paged.map_figure({"4 rows": history(), "8 blocks of 4": history()}, 2, 16),
    "04 waste": lambda: paged.waste_figure([(80, 100), (300, 330)], 16, 1024),
    "04 gather": lambda: paged.gather_figure(
        [64, 256, 4096], {1: [7, 6, 3.1], 16: [7, 5, 1.1], 256: [7, 5, 1]}
    ),
    "04 resident": lambda: paged.resident_figure(
        [1e6, 2e6], {"virtual: 201 MB of addresses": [1e6, 2e6], "contiguous: 63 MB reserved": [2e6, 2e6]}
    ),
    "05 bytes": lambda: flash.bytes_figure(4096, 128, 128),
    "05 walk": lambda: flash.walk_figure(list(flash_data.walk(2)), flash_data.WORDS, 9000, 3),
    "05 walk, small tiles": lambda: flash.walk_figure(list(flash_data.walk(1)), flash_data.WORDS, 9000, 21),
    "05 memory": lambda: flash.memory_figure(
        [512, 4096], {"torch's, 3 axes": [4 * 10**6, 10**8], "b": [4 * 10**6, 10**8], "c": [10**6, 10**6]}
    ),
    "05 speed": lambda: flash.speed_figure([64, 2048], {"torch's": [1.7, 40], "our loops": [0.4, 1.8]}),
    "06 bytes": lambda: int8.bytes_figure({"32 bits": 32e9, "8 bits": 8e9}, 2e12, "an A100"),
    "06 number line": lambda: int8.number_line_figure(expect.randn(768), 4, 768, 1.0),
    "06 number line, groups": lambda: int8.number_line_figure(expect.randn(768), 8, 128, 8.0),
    "06 groups": lambda: int8.groups_figure(
        {"qkv": [0.012, 0.007], "down_proj": [0.041, 0.01]}, ["the matrix", "a row"]
    ),
    "06 formats": lambda: int8.formats_figure(expect.randn(64, 256)),
    "06 crossing": lambda: int8.crossing_figure(
        [3, 12, 64],
        [{"INT8": 0.007 * n, "FP8": 0.026} for n in (1, 4, 21)],
        {"a row of W": 3.5, "a token, input of down_proj": 11.6, "a token, planted": 15.0},
    ),
    "06 channels": lambda: int8.channels_figure(
        {
            name: (expect.randn(256).abs() * n, expect.randn(256).abs())
            for n, name in enumerate(("as trained", "planted outliers", "planted, then smoothed"), start=1)
        }
    ),
    "06 quality": lambda: int8.quality_figure({"int8": (0.0003, 0.01), "fp8": (0.0066, 0.039)}),
    "06 rows": lambda: int8.rows_figure(
        [1, 4, 16, 64, 256],
        {"float": [1.0] * 5, "int8": [0.5, 0.5, 0.9, 1.6, 2.4], "w8a8": [0.6] * 5, "w8a8_fp8": [3.0] * 5},
        "A matrix of 2048 × 2048",
    ),
    "07 bits": lambda: four_bits.bits_figure(
        {bits: four_data.Score(10.0**-bits, bits / 9, 9) for bits in (8, 6, 5, 4, 3)}
    ),
    "07 word": lambda: four_bits.word_figure(
        torch.arange(32, dtype=torch.uint8) * 7, torch.randn(64), 0.01901, 63
    ),
    "07 rolling": lambda: four_bits.rolling_figure(
        four_data.walk(256), four_data.walk(256).errors(), four_data.walk(256).errors(nearest=True), 2, 128
    ),
    "07 salient": lambda: four_bits.salient_figure(
        {"the model": torch.rand(256), "planted": 20 * torch.rand(256)}, 3
    ),
    "07 alpha": lambda: four_bits.alpha_figure(
        {"the model": [1 + i / 30 for i in range(20)], "planted": [1 - i / 60 for i in range(20)]}
    ),
    "07 ladder": lambda: four_bits.ladder_figure({"rounded to nearest": 0.13, "scaled by 4": 0.07}, "KL"),
    "07 methods": lambda: four_bits.methods_figure(four_data.points(), four_data.Score(0, 1, 5.5)),
    "07 cache": lambda: four_bits.cache_figure("llama_3_8b", LLAMA, 8),
    "07 cache, one request": lambda: four_bits.cache_figure("llama_3_70b", KNOWN_MODELS["llama_3_70b"], 1),
    "08 Gantt": lambda: batching.gantt_figure(
        {"static batching": batching_data.STATIC, "40 blocks": batching_data.PREEMPTED}, 4
    ),
    "08 steps": lambda: batching.step_figure(batching_data.PREEMPTED, 8, 2),
    "08 three schedulers": lambda: batching.comparison_figure(
        [1, 9, 9, 21], {"continuous": (2.61, 100), "static": (8.8, 216), "one at a time": (12.58, 751)}
    ),
    "08 latency": lambda: batching.latency_figure(stalls(), ["long"]),
    "08 player, on GitHub": lambda: stand_in(batching_data.PREEMPTED),
    "09 repeats": lambda: prefix.repeats_figure([528] * 8, [528, *[16] * 7]),
    "09 tree": lambda: prefix.tree_figure(
        prefix.replay(prefix_data.story(), prefix_data.PROMPTS, 2), 4, 2, SAY
    ),
    "09 TTFT": lambda: prefix.ttft_figure([0.24, 0.3], [0.017, 0.03], 528, 512),
    "09 difference": lambda: prefix.difference_figure([0, 15, 527], [0, 0, 512], 528, [0.3, 0.3, 0.03], 16),
    "09 pool": lambda: prefix.pool_figure(
        [10, 160], {"in turn": [0, 0.9], "a few talk most": [0.2, 0.9]}, 128, 240
    ),
    **{f"10 {name}": make for name, make in speculative_data.PICTURES.items()},
    **{f"13 {name}": make for name, make in serving_data.PICTURES.items()},
    "11 launches": lambda: graphs.timeline_figure({"written out": [graphs_data.STEP]}, 1, 1, 0),
    "11 fusion": lambda: graphs.fusion_figure(
        {way: [Call("matmul", False), Call("add", False)] for way in ("written out", "torch's", "kernels")},
        {
            name: {"written out": 1573000, "torch's": 786000, "kernels": 590000}
            for name in ("add_rms_norm", "swiglu")
        },
        1,
        "64 tokens",
    ),
    "11 buffers": lambda: graphs.buffers_figure([graphs_data.FRAME], 1),
    "11 ladders": lambda: graphs.ladder_figure(
        {"one size": [32], "powers of two": [1, 2, 4, 8, 16, 32]}, [1, 5, 17, 32], 17
    ),
    "11 bound": lambda: graphs.bound_figure(
        {"8B": LLAMA}, {"written out": lambda _: 900.0, "kernels": lambda _: 300.0}, "A100", 5, 1
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_word_can_be_read(name: str) -> None:
    picture = PICTURES[name]()
    assert faults(picture) == []
    assert picture.shown_width <= 960  # pixels: a notebook's page on a laptop


def test_words_that_cannot_be_read_are_seen() -> None:
    with style():
        picture = Picture(figsize=(3, 2), layout="none")
        axes = picture.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for x, text in ((0.1, "first"), (0.12, "second"), (0.95, "far out")):
            axes.text(x, 0.5, text)
        axes.text(0.1, 0.1, "tiny", fontsize=7)
        axes.text(0.5, 0.1, "pale", color=PREFILL)
    assert faults(picture) == [
        "'tiny' is 7 points, below 8",
        "'pale' is pale: #e69f00",
        "'first' is on 'second'",
        "'far out' is cut by the edge",
    ]


def test_a_picture_is_an_opaque_card_twice_as_sharp_as_it_is_shown() -> None:
    with style():
        picture = Picture(figsize=(3, 1), layout="none")
        picture.add_axes((0, 0.5, 0.5, 0.5)).bar([0], [1], width=9, color=DECODE)
    png, metadata = picture._repr_png_()
    pixels = matplotlib.image.imread(io.BytesIO(png))
    assert pixels.shape[:2] == (192, 576) and metadata == {"width": 288}
    assert pixels.shape[2] == 3 or pixels[..., 3].min() == 1, "no theme shines through"
    assert tuple((255 * pixels[-1, 0, :3]).round()) == (255, 255, 255)
    plain = numpy.array([0x00, 0x72, 0xB2]) / 255  # the palette of the file has the colours of the course
    assert (abs(pixels[..., :3] - plain).max(-1) < 1e-6).mean() > 0.1


@pytest.mark.parametrize(
    ("color", "ink"), [(DECODE, PAPER), (PREFILL, INK), ("#332288", PAPER), (PAPER, INK)]
)
def test_words_on_a_colour_are_dark_or_light(color: str, ink: str) -> None:
    assert ink_on(color) == ink
