import pytest

import minillm
from minillm import SamplingParams, ops
from minillm.cache.blocks import BlockAllocator
from minillm.cache.prefix import PrefixCache
from minillm.engine.scheduler import Scheduler
from minillm.quantization.schemes import ON_THE_FLY
from minillm.sampling import Sampled
from tests.engine import tiny
from tests.engine.tiny import PROMPTS

PARAMS = SamplingParams(temperature=0, max_tokens=8)


def found(llm):
    return tiny.tokens(llm.generate([list(prompt) for prompt in PROMPTS[:3]], PARAMS))


def test_a_part_serves_the_engines_built_inside_and_no_others():
    used = []

    class Mine(BlockAllocator):
        def allocate(self):
            used.append(self)
            return super().allocate()

    before = tiny.llm()
    with minillm.swap(allocator=Mine):
        inside = tiny.llm()
        found(before)
        assert used == []
    after = tiny.llm()
    found(after)
    assert used == []
    assert found(inside) == [[tiny.greedy(prompt, 8)] for prompt in PROMPTS[:3]]
    assert used and {id(part) for part in used} == {id(inside.engine.memory.allocator)}


# The operations that only a quantised model calls, and the model's quantization.
QUANTIZED = {f"{kind}_matmul": name for name, kind in ON_THE_FLY.items()}


@pytest.mark.parametrize(
    "name", sorted({*ops.Ops.names()} - {"fp8_matmul"})
)  # which needs a checkpoint in FP8
def test_every_operation_can_be_swapped(name):
    calls = []

    def spy(*args):
        calls.append(name)
        return getattr(ops, name)(*args)

    with minillm.swap(**{name: spy}):
        llm = tiny.llm(quantization=QUANTIZED.get(name))
    texts = found(llm)
    assert calls and (name in QUANTIZED or texts == [[tiny.greedy(prompt, 8)] for prompt in PROMPTS[:3]])


def test_a_swapped_linear_computes_every_product_with_a_weight():
    calls = []

    def mine(x, weight, bias):
        calls.append((len(x), weight.data_ptr()))
        return ops.linear(x, weight, bias)

    with minillm.swap(linear=mine):
        llm = tiny.llm()
    llm.generate([5, 6, 7], SamplingParams(max_tokens=2, ignore_eos=True))
    weights = []
    llm.model.with_projections(lambda name, p: weights.append(p.weight.data_ptr()) or p)
    prefill, decode = calls[: len(weights)], calls[len(weights) :]
    assert [rows for rows, _ in prefill[:-1]] == [3] * (len(weights) - 1)
    assert [rows for rows, _ in decode] == [1] * len(weights)
    assert {w for _, w in prefill} == {w for _, w in decode} == set(weights)


def test_scheduler_prefix_cache_and_sampling_can_be_swapped_together_and_one_by_one():
    seen = []

    class Spy(Scheduler):
        def schedule(self):
            seen.append("scheduler")
            return super().schedule()

    class Known(PrefixCache):
        def match(self, hashes):
            seen.append("prefix")
            return super().match(hashes)

    def always_three(logits, rows, vocab_size):
        return Sampled([3] * len(rows), [None] * len(rows))

    with minillm.swap(scheduler=Spy, prefix_cache=Known), minillm.swap(sample=always_three):
        llm = tiny.llm()
    [output] = llm.generate([5, 6], SamplingParams(max_tokens=4))
    assert output.outputs[0].token_ids == [3] * 4 and {"scheduler", "prefix"} == set(seen)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"sheduler": Scheduler},
            r"swap\(\) has no part 'sheduler': it takes allocator, prefix_cache, scheduler, ",
        ),
        ({"allocator": 7}, "allocator is a int: give a class called with the number of blocks"),
    ],
)
def test_what_is_no_part_is_refused(parts, message):
    with pytest.raises(TypeError, match=message), minillm.swap(**parts):
        pass
