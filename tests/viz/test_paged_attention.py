import random
from collections.abc import Sequence

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

from matplotlib.collections import PatchCollection
from matplotlib.colors import to_hex, to_rgba

from minillm import SamplingParams
from minillm.measure.trace import (
    BlockCounts,
    Phases,
    Record,
    RequestAdded,
    RequestFinished,
    ScheduledRequest,
    StepRecord,
    Trace,
)
from minillm.viz import paged_attention as pictures
from minillm.viz.paged_attention import REQUESTS, History
from minillm.viz.style import KV, WASTE
from tests.engine import tiny
from tests.player.test_recording import traced

A, B, C = REQUESTS[:3]


def part(name: str, computed: int, tokens: int, blocks: Sequence[int]) -> ScheduledRequest:
    return ScheduledRequest(name, "decode" if tokens == 1 else "prefill", computed, tokens, 0, list(blocks))


def step(
    number: int, parts: Sequence[ScheduledRequest], free: int, total: int = 8, **fields: object
) -> StepRecord:
    times = Phases(0, 0, 0, 0)
    made = StepRecord(number, number, number + 1, list(parts), 1, len(parts), times, BlockCounts(total, free))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def trace(*records: Record) -> Trace:
    made = Trace()
    made.extend(records)
    return made


# Blocks of 4. A prompt of 6 tokens is computed (blocks 0, 1), forked, and both go on; a.1 gets a copy of block 1.
FORK = trace(
    RequestAdded(0, "a.0", 6),
    RequestAdded(0, "a.1", 6),
    step(0, [part("a.0", 0, 6, [0, 1])], free=6, published=[0]),
    step(1, [part("a.0", 6, 1, [0, 2]), part("a.1", 6, 1, [0, 1])], free=5, copied=[(1, 2)]),
    RequestFinished(2, "a.1", "length"),
    step(2, [part("a.0", 7, 1, [0, 2]), part("a.1", 7, 1, [0, 1])], free=5, published=[1, 2]),
    RequestAdded(2, "b", 3),
    step(3, [part("a.0", 8, 1, [0, 2, 1]), part("b", 0, 3, [3])], free=4),
)


def test_the_memory_is_what_the_block_tables_say() -> None:
    history = History.of(FORK, 4)
    assert [memory.holders() for memory in history.steps] == [
        {0: ["a.0"], 1: ["a.0"]},
        {0: ["a.0", "a.1"], 2: ["a.0"], 1: ["a.1"]},
        {0: ["a.0", "a.1"], 2: ["a.0"], 1: ["a.1"]},
        {0: ["a.0"], 2: ["a.0"], 1: ["a.0"], 3: ["b"]},
    ]
    assert [memory.filled(4) for memory in history.steps] == [
        {0: 4, 1: 2},
        {0: 4, 2: 3, 1: 3},
        {0: 4, 2: 4, 1: 4},
        {0: 4, 2: 4, 1: 1, 3: 3},
    ]
    assert history.used() == [6, 10, 12, 12] and history.held() == [8, 12, 12, 16]


def test_a_block_that_is_given_to_somebody_else_is_known_no_more() -> None:
    assert [memory.known for memory in History.of(FORK, 4).steps] == [{0}, {0}, {0, 1, 2}, {0, 2}]


def test_a_copy_takes_the_place_of_what_was_known() -> None:
    records = trace(
        *(RequestAdded(0, name, 4) for name in ("z", "a.0", "a.1")),
        step(0, [part("a.0", 0, 2, [0]), part("z", 0, 4, [5])], free=6, published=[5]),
        RequestFinished(1, "z", "length"),
        step(1, [part("a.0", 2, 1, [0]), part("a.1", 2, 1, [0])], free=7),
        step(2, [part("a.0", 3, 1, [5]), part("a.1", 3, 1, [0])], free=6, copied=[(0, 5)]),
    )
    assert [memory.known for memory in History.of(records, 4).steps] == [{5}, {5}, set()]


def test_what_the_prefix_cache_gave_stays_known() -> None:
    hit = ScheduledRequest("b", "prefill", 4, 2, 4, [0, 5])
    records = trace(
        RequestAdded(0, "a", 4),
        RequestAdded(0, "b", 6),
        RequestFinished(0, "a", "length"),
        step(0, [part("a", 0, 4, [0])], free=7, published=[0]),
        step(1, [hit], free=6),
    )
    assert History.of(records, 4).steps[1].known == {0}


def test_what_was_preempted_or_aborted_holds_nothing() -> None:
    records = trace(
        *(RequestAdded(0, name, 4) for name in "abc"),
        step(0, [part("a", 0, 4, [0]), part("b", 0, 4, [1]), part("c", 0, 4, [2])], free=5),
        RequestFinished(1, "b", "abort"),
        step(1, [part("a", 4, 1, [0, 3])], free=6, preempted=["c"]),
    )
    assert History.of(records, 4).steps[1].holders() == {0: ["a"], 3: ["a"]}


def test_who_is_not_scheduled_keeps_its_blocks() -> None:
    records = trace(
        RequestAdded(0, "a", 4),
        RequestAdded(0, "b", 12),
        step(0, [part("a", 0, 4, [0])], free=7),
        step(1, [part("b", 0, 4, [1, 2, 3])], free=4),
    )
    assert History.of(records, 4).steps[1].filled(4) == {0: 4, 1: 4, 2: 0, 3: 0}


def test_a_trace_that_contradicts_the_engines_count_is_refused() -> None:
    wrong = trace(RequestAdded(0, "a", 4), step(0, [part("a", 0, 4, [0])], free=6))
    with pytest.raises(ValueError, match="Step 0: 1 blocks are in block tables, but the engine counts 2"):
        History.of(wrong, 4)


def test_a_run_without_a_cache_is_refused() -> None:
    without = step(0, [part("a", 0, 4, [])], free=0)
    without.blocks = None
    with pytest.raises(ValueError, match="without a cache"):
        History.of(trace(RequestAdded(0, "a", 4), without), 4)


def test_a_run_can_be_read_while_it_goes_on() -> None:
    growing, history = Trace(), History(4)
    for record in FORK:
        growing.append(record)
        history.read(growing)
    assert history == History.of(FORK, 4)


@pytest.mark.parametrize("seed", range(3))
def test_every_step_of_real_runs_agrees_with_the_engine(seed: int) -> None:
    """Forks, hits, preemptions and aborts: the blocks held, and the free ones that are known, as the engine counts."""
    dice = random.Random(seed)
    engine = tiny.llm(num_gpu_blocks_override=16, block_size=4, max_num_seqs=6, trace=True).engine
    history, events = History(4), [0, 0, 0]
    for number in range(160):
        if number < 120 and dice.random() < 0.35:
            prompt = [*range(7, 7 + dice.randint(1, 12)), dice.randint(7, 9)]
            params = SamplingParams(
                max_tokens=dice.randint(1, 24), n=dice.randint(1, 3), seed=number, ignore_eos=True
            )
            engine.add_request(prompt, params, request_id=str(number))
        if dice.random() < 0.06:
            engine.abort(str(dice.randrange(number + 1)))
        engine.step()
        history.read(engine.trace)
        if history.steps and history.steps[-1].step.step == engine._num_steps - 1:
            memory = history.steps[-1]
            before = history.steps[-2].known if len(history.steps) > 1 else frozenset()
            free_known = (memory.known - set(memory.step.published)) - memory.holders().keys()
            assert len(free_known) == memory.step.blocks.cached, memory.step
            assert memory.known - set(memory.step.published) <= before
    for memory in history.steps:
        events[0] += len(memory.step.copied)
        events[1] += len(memory.step.preempted)
        events[2] += sum(part.num_cached_tokens > 0 for part in memory.step.scheduled)
    assert all(events), f"nothing was tried: {events}"


def patches(axes: object) -> list[tuple[str, tuple[float, float]]]:
    """The rectangles of a map: colour, and where from and how far it goes along its line."""
    (collection,) = [c for c in axes.collections if isinstance(c, PatchCollection)]
    return [
        (to_hex(color).upper(), (round(path.vertices[0][0], 2), round(path.vertices[1][0], 2)))
        for color, path in zip(collection.get_facecolors(), collection.get_paths(), strict=True)
    ]


def test_a_map_shows_who_holds_what_and_how_full_it_is() -> None:
    history = History.of(FORK, 4)
    left, _ = pictures.map_figure({"run": history}, 2, width=16).axes
    found = patches(left)
    gap = 16 / 500
    full = 4 * (1 - gap / 4)
    assert [entry for entry in found if entry[0] == A] == [
        (A, (0, round(full, 2))),
        (A, (8, round(8 + 3 * (1 - gap / 4), 2))),
    ]
    assert [entry for entry in found if entry[0] == B] == [
        (B, (0, round(full, 2))),
        (B, (4, round(4 + 3 * (1 - gap / 4), 2))),
    ]
    heights = [
        [round(float(y), 3) for y in sorted({y for _, y in path.vertices})]
        for color, path in zip(
            left.collections[0].get_facecolors(), left.collections[0].get_paths(), strict=True
        )
        if to_hex(color).upper() in (A, B) and path.vertices[0][0] == 0
    ]
    assert heights == [[0.06, 0.5], [0.5, 0.94]], "each request that shares a block has a stripe of it"
    assert sum(color == WASTE.upper() for color, _ in found) == 3
    assert sum(color == pictures.FREE.upper() for color, _ in found) == 5
    assert left.get_title(loc="left") == "run, step 2: 2 run, 1 wait; 10 of 32 slots hold a token (31%)"


def test_beside_the_map_is_its_use_over_the_steps() -> None:
    history = History.of(FORK, 4)
    _, right = pictures.map_figure({"run": history}, 2, width=32).axes
    held, used = (area.get_paths()[0].vertices[:, 1].max() for area in right.collections)
    assert (held, used) == (16 / 32, 12 / 32)
    assert [to_hex(area.get_facecolor()[0]).upper() for area in right.collections] == [
        WASTE.upper(),
        KV.upper(),
    ]
    assert right.lines[0].get_xdata()[0] == 2


def test_a_run_that_is_over_is_empty_and_said_to_be() -> None:
    one, other = History.of(FORK, 4), History.of(trace(*FORK[:3]), 4)
    explorer = pictures.map_explorer({"long": one, "short": other}, width=32, step=4)
    assert explorer.values == {"step": 4}
    panels = pictures.map_figure({"long": one, "short": other}, 4, width=32).axes
    assert panels[2].get_title(loc="left") == "short, done after step 1"
    assert {color for color, _ in patches(panels[2])} == {pictures.FREE.upper()}
    first = explorer.png
    explorer.set(step=1)
    assert explorer.png != first


def test_utilisation_is_over_the_whole_life_of_a_request() -> None:
    ways = pictures.policies(4, 16)
    # Lengths 3, 4, 5: 12 tokens in all. Reserved: 3 x 16; 3 x 8; 3 x 5; 4 + 4 + 8.
    shares = [pictures.utilisation([(3, 5)], reserve) for reserve in ways.values()]
    assert shares == [12 / 48, 12 / 24, 12 / 15, 12 / 16]
    both = pictures.utilisation([(3, 5), (8, 8)], ways["blocks of 4"])
    assert both == 20 / 24


@pytest.mark.parametrize(("end", "row"), [(1, 1), (2, 2), (3, 4), (8, 8), (9, 16)])
def test_the_next_power_of_two(end: int, row: int) -> None:
    assert pictures.policies(4, 16)["a row, the next power of two"](1, end) == row


@pytest.mark.parametrize("size", [2, 16, 128])
def test_the_formula_is_the_mean_over_lengths(size: int) -> None:
    """Over whole multiples of the block size every remainder is met once."""
    lives = [(size * 4 + 1, size * 12)]
    mean = (size * 4 + 1 + size * 12) / 2
    wasted = 1 - pictures.utilisation(lives, pictures.policies(size, 9999)[f"blocks of {size}"])
    assert wasted == pytest.approx(pictures.expected_waste(mean, size))


def test_at_16_tokens_a_block_188_tokens_are_needed_for_4_percent() -> None:
    def empty_to_used(length: int) -> float:
        waste = pictures.expected_waste(length, 16)
        return waste / (1 - waste)

    assert empty_to_used(187) > 0.04 > empty_to_used(188)


def test_the_bars_and_dots_of_waste() -> None:
    left, right = pictures.waste_figure([(3, 5), (8, 8)], 4, 16).axes
    widths = [bar.get_width() for bar in left.patches]
    assert widths[:4] == [1] * 4 and widths[4:] == pytest.approx([20 / 64, 20 / 32, 20 / 23, 20 / 24])
    assert [bar.get_facecolor() for bar in left.patches] == [to_rgba(WASTE)] * 4 + [to_rgba(KV)] * 4
    assert [text.get_text() for text in left.texts] == ["31.2%", "62.5%", "87.0%", "83.3%"]
    dots = dict(zip(right.lines[0].get_xdata(), right.lines[0].get_ydata(), strict=True))
    assert dots[4] == pytest.approx(4 / 24) and dots[1] == 0
    assert list(right.lines[-1].get_xdata()) == [4], "the chosen size is marked"
    assert right.get_title(loc="left") == "Wasted in blocks, L = 5 tokens"


def test_a_moved_block_size_draws_anew() -> None:
    explorer = pictures.waste_explorer([(3, 5)], 16)
    first = explorer.png
    explorer.set(block_size=64)
    assert explorer.png != first


def test_the_price_of_a_block_size() -> None:
    (axes,) = pictures.gather_figure([64, 1024], {1: [2.0, 3.0], 16: [1.5, 0.9]}).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[2.0, 3.0], [1.5, 0.9], [1, 1]]
    assert [text.get_text() for text in axes.texts] == ["blocks of 16", "contiguous rows", "blocks of 1"]


def test_resident_memory_is_in_megabytes() -> None:
    axes = pictures.resident_figure([1e6, 2e6], {"virtual": [2e6, 3e6], "contiguous": [4e6, 4e6]}).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[2, 3], [4, 4]]
    assert [text.get_text() for text in axes.get_legend().get_texts()][1:] == ["virtual", "contiguous"]
    assert axes.get_ylabel() == "MB"


def test_it_knows_the_blocks_of_requests_that_wait_for_budget():
    """Forks and drafts change the block tables of requests that compute nothing in the next step."""
    records, settings, _ = traced("draft model")
    assert any(record.idle_tables for record in records.of(StepRecord))
    History.of(records, settings["block_size"])
