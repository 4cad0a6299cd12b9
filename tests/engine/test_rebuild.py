"""Engine arguments change while requests run: the texts go on as if nothing had happened."""

import pytest

import minillm
from minillm import RequestError, SamplingParams
from minillm.engine.scheduler import Scheduler
from minillm.measure.trace import EngineReset, RequestAdded, StepRecord, TokenRecord
from tests.engine import tiny
from tests.engine.tiny import PROMPTS, assert_idle, tokens

CHANGES = {
    "small blocks": {"block_size": 4, "num_gpu_blocks_override": 20},
    "static": {"scheduling_policy": "static", "max_num_seqs": 2},
    "rows": {"kv_cache": "contiguous"},
    "no cache": {"kv_cache": "none"},
    "chunks": {"max_num_batched_tokens": 7, "enable_prefix_caching": False},
}
PARAMS = [
    SamplingParams(seed=i, n=1 + i % 2, max_tokens=14 + i, repetition_penalty=1.2, ignore_eos=True)
    for i in range(len(PROMPTS))
]


def started(llm, num_steps=5):
    outputs = [llm.engine.add_request(list(p), params) for p, params in zip(PROMPTS, PARAMS, strict=True)]
    for _ in range(num_steps):
        llm.engine.step()
    return outputs


def finished(llm, outputs):
    while llm.engine.has_unfinished:
        llm.engine.step()
    return tokens(outputs), [sample.text for output in outputs for sample in output.outputs]


@pytest.fixture(scope="module")
def undisturbed():
    llm = tiny.llm()
    return finished(llm, started(llm, 0))


@pytest.mark.parametrize("change", CHANGES)
def test_texts_go_on_and_every_block_comes_back(change, undisturbed):
    llm = tiny.llm(trace=True)
    outputs = started(llm)
    trace, before = llm.trace, llm.engine
    llm.rebuild(**CHANGES[change])
    assert llm.engine is not before and llm.trace is trace
    assert finished(llm, outputs) == undisturbed
    assert_idle(llm)
    assert len(trace.of(RequestAdded)) == sum(params.n for params in PARAMS)
    assert len(trace.of(TokenRecord)) == sum(params.n * params.max_tokens for params in PARAMS)
    (reset,) = trace.of(EngineReset)
    assert reset.reason == "rebuilt" and reset.settings["block_size"] == llm.config.block_size
    steps = [record.step for record in trace.of(StepRecord)]
    assert steps == list(range(len(steps)))


def test_it_may_happen_while_the_thread_steps(undisturbed):
    with tiny.llm(trace=True) as llm:
        llm.start()
        outputs = llm.submit([list(prompt) for prompt in PROMPTS], PARAMS)
        for change in CHANGES.values():
            llm.rebuild(**change)
        llm._loop.wait(outputs, lambda: all(output.finished for output in outputs))
        assert tokens(outputs) == undisturbed[0]


@pytest.mark.parametrize("rebuilt", [True, False])
def test_a_later_request_gets_the_seed_of_its_arrival(rebuilt):
    llm, params = tiny.llm(), SamplingParams(temperature=1.5, max_tokens=12, ignore_eos=True)
    outputs = [llm.engine.add_request(list(PROMPTS[0]), params)]
    llm.engine.step()
    if rebuilt:
        llm.rebuild(block_size=4)
    outputs.append(llm.engine.add_request(list(PROMPTS[0]), params))
    assert [output.request_id for output in outputs] == ["0", "1"]
    together = tiny.llm().generate([list(PROMPTS[0])] * 2, params)
    assert finished(llm, outputs)[0] == tokens(together)


def test_the_new_engine_has_what_is_swapped():
    class Mine(Scheduler):
        pass

    llm = tiny.llm()
    with minillm.swap(scheduler=Mine):
        llm.rebuild()
    assert type(llm.engine.scheduler) is Mine
    llm.rebuild()
    assert type(llm.engine.scheduler) is Scheduler


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"block_size": 4, "num_gpu_blocks_override": 5}, "5 blocks"),
        ({"max_model_len": 40}, "max_model_len=40"),
    ],
)
def test_an_engine_too_small_for_a_request_is_refused(change, named, undisturbed):
    llm = tiny.llm(trace=True)
    outputs = started(llm)
    config, engine = llm.config, llm.engine
    with pytest.raises(RequestError, match=named):
        llm.rebuild(**change)
    assert llm.config == config and llm.engine is engine
    assert finished(llm, outputs) == undisturbed


def test_a_name_that_is_no_argument_is_refused():
    with pytest.raises(TypeError, match=r"rebuild\(\) has no argument 'blocks'"):
        tiny.llm().rebuild(blocks=3)


def test_an_error_that_frees_all_blocks_is_in_the_trace(monkeypatch):
    llm = tiny.llm(trace=True)
    outputs = started(llm, 2)
    monkeypatch.setattr(llm.engine.scheduler, "schedule", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        llm.engine.step()
    assert [record.reason for record in llm.trace.of(EngineReset)] == ["ZeroDivisionError: division by zero"]
    assert all(output.finished for output in outputs)
