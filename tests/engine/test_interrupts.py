"""An interrupt may come between any two lines. Afterwards every block is free, no request is half done, all works."""

import random
import sys
import warnings
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest

import minillm
from minillm import SamplingParams
from tests.engine import tiny
from tests.engine.tiny import PROMPTS

PACKAGE = Path(minillm.__file__).parent
FILES = tuple(
    str(PACKAGE / name)
    for name in ("llm.py", "engine/", "cache/", "sampling/", "model/tokenizer.py", "ops.py")
)
CHANGES = {"block_size": 4, "num_gpu_blocks_override": 16, "max_num_seqs": 4, "max_model_len": 48}
ASKED = [list(PROMPTS[2][:20]), list(PROMPTS[2]), list(PROMPTS[5])]
PARAMS = [
    SamplingParams(temperature=0, max_tokens=5, ignore_eos=True, logprobs=1),
    SamplingParams(n=2, seed=1, max_tokens=5, ignore_eos=True, stop=["zz"]),
    SamplingParams(temperature=0, max_tokens=5, ignore_eos=True),
]
BYSTANDER = SamplingParams(seed=7, max_tokens=12, ignore_eos=True)


def interrupt_at(number, function):
    """Call the function, with KeyboardInterrupt before the line event `number` of the package; returns their count."""
    seen = [0]

    def trace_line(frame, event, arg):
        if event == "line":
            seen[0] += 1
            if seen[0] == number:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace_line

    def trace_call(frame, event, arg):
        return trace_line if frame.f_code.co_filename.startswith(FILES) else None

    sys.settrace(trace_call)
    try:
        function()
    finally:
        sys.settrace(None)
    return seen[0]


def lives(numbers):
    """For each number a fresh engine, another caller's stream, and a `generate` that is interrupted there."""
    alone = tiny.llm(**CHANGES)
    expected = tiny.tokens(alone.generate(ASKED, PARAMS))
    others = [delta.token_ids for delta in alone.stream(list(PROMPTS[0]), BYSTANDER)]
    for number in numbers:
        llm = tiny.llm(**CHANGES)
        stream = llm.stream(list(PROMPTS[0]), BYSTANDER)
        found = [next(stream).token_ids]
        with suppress(KeyboardInterrupt):
            interrupt_at(number, lambda llm=llm: llm.generate(ASKED, PARAMS, use_tqdm=False))
        found += [delta.token_ids for delta in stream]
        assert [*chain(*found)] == [*chain(*others)], "another caller's request goes on"
        while llm.engine.has_unfinished:  # what an interrupt of the clean-up itself has left ends too
            llm.engine.step()
        tiny.assert_idle(llm)
        assert llm.engine._requests == {}
        assert tiny.tokens(llm.generate(ASKED, PARAMS)) == expected
        tiny.assert_idle(llm)
        tiny.assert_blocks_add_up(llm)


def random_numbers(count, seed):
    llm = tiny.llm(**CHANGES)
    lines = interrupt_at(0, lambda: llm.generate(ASKED, PARAMS, use_tqdm=False))
    assert lines > 1000
    return random.Random(seed).sample(range(1, lines), count)


@pytest.fixture(autouse=True)
def _expected_warnings():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "interrupted: ")
        yield


def test_an_interrupt_at_a_random_point_leaves_an_engine_that_works():
    lives(random_numbers(30, seed=0))


@pytest.mark.slow
def test_interrupts_at_two_hundred_random_points_leave_an_engine_that_works():
    lives(random_numbers(200, seed=1))
