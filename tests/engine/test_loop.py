"""The engine's own thread: who steps, who waits, and what reaches whom."""

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from minillm import LLM, QueueFullError, RequestError, SamplingParams
from minillm.engine.engine import Engine
from minillm.engine.turns import Turns
from minillm.model.transformer import Transformer
from tests.engine import tiny
from tests.engine.tiny import PROMPTS

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
LONG = SamplingParams(temperature=0, max_tokens=50, ignore_eos=True)


def alone(prompt, params=GREEDY):
    return tiny.llm().generate(list(prompt), params)[0].outputs[0].token_ids


async def collect(llm, prompt, params=GREEDY):
    return [i async for delta in llm.astream(list(prompt), params) for i in delta.token_ids]


def started(**changes) -> LLM:
    """An LLM whose thread runs."""
    llm = tiny.llm(**changes)
    asyncio.run(collect(llm, PROMPTS[1]))
    return llm


@pytest.fixture
def steps(monkeypatch):
    """The names of the threads that stepped an engine."""
    names, step = set(), Engine.step

    def noted(self):
        names.add(threading.current_thread().name)
        return step(self)

    monkeypatch.setattr(Engine, "step", noted)
    return names


def test_the_event_loop_never_steps(steps):
    async def main():
        with tiny.llm() as llm:
            return await asyncio.gather(*(collect(llm, prompt) for prompt in PROMPTS))

    assert asyncio.run(main()) == [alone(prompt) for prompt in PROMPTS]
    assert "minillm-engine" in steps
    steps.clear()
    llm = started()
    assert tiny.tokens(llm.generate([list(prompt) for prompt in PROMPTS], GREEDY)) == [
        [alone(prompt)] for prompt in PROMPTS
    ]
    assert [i for delta in llm.stream(list(PROMPTS[0]), GREEDY) for i in delta.token_ids]
    tiny.assert_idle(llm)


def test_once_a_thread_runs_generate_and_stream_wait_for_it(steps):
    llm = started()
    steps.clear()
    llm.generate([list(prompt) for prompt in PROMPTS], GREEDY)
    list(llm.stream(list(PROMPTS[0]), GREEDY))
    assert steps == {"minillm-engine"}


def test_a_script_needs_no_thread(steps):
    llm = tiny.llm()
    llm.generate(list(PROMPTS[0]), GREEDY)
    assert steps == {threading.current_thread().name} and llm._loop._thread is None


@pytest.mark.parametrize("make", [tiny.llm, started])
def test_many_threads_may_call_at_once(make):
    llm, found = make(), {}

    def call(i):
        found[i] = llm.generate(list(PROMPTS[i % 6]), GREEDY)[0].outputs[0].token_ids

    threads = [threading.Thread(target=call, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {i: alone(PROMPTS[i % 6]) for i in range(12)}
    tiny.assert_idle(llm)


@pytest.fixture
def ctrl_c():
    """A shell starts background jobs with SIGINT ignored; a test of Ctrl-C needs Python's handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("make", [tiny.llm, started])
def test_ctrl_c_aborts_only_the_callers_requests(make):
    llm = make()
    if llm._loop._thread is None:
        other = llm.stream(list(PROMPTS[0]), LONG)
        found = list(next(other).token_ids)
    else:
        other, found = None, []
        thread = threading.Thread(target=lambda: found.extend(asyncio.run(collect(llm, PROMPTS[0], LONG))))
        thread.start()

    def slow(output, logits):
        time.sleep(0.01)
        return logits

    params = SamplingParams(temperature=0, max_tokens=80, ignore_eos=True, logits_processors=[slow])
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.warns(UserWarning, match="interrupted: 2 of 2"):
        outputs = llm.generate([list(PROMPTS[1]), list(PROMPTS[5])], params)
    assert [output.outputs[0].finish_reason for output in outputs] == ["abort"] * 2
    if other is not None:
        found += [i for delta in other for i in delta.token_ids]
    else:
        thread.join(60)
    assert found == alone(PROMPTS[0], LONG)
    tiny.assert_idle(llm)


def fails(output, logits):
    if len(output) == 2:
        raise ZeroDivisionError("mine")
    return logits


def test_an_error_reaches_its_own_caller_alone():
    llm = tiny.llm()
    bad = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, logits_processors=[fails])

    async def main():
        return await asyncio.gather(
            *(collect(llm, PROMPTS[i], bad if i == 1 else GREEDY) for i in range(3)), return_exceptions=True
        )

    first, error, last = asyncio.run(main())
    assert [first, last] == [alone(PROMPTS[0]), alone(PROMPTS[2])]
    assert isinstance(error, ZeroDivisionError)
    with pytest.raises(RequestError, match="1 of 2 requests failed"):
        llm.generate([list(PROMPTS[0])] * 2, [GREEDY, bad])
    deltas = []
    with pytest.raises(ZeroDivisionError):
        deltas.extend(llm.stream(list(PROMPTS[0]), bad))
    tiny.assert_idle(llm)


def test_another_callers_error_does_not_reach_a_caller_that_steps(monkeypatch):
    """Without a thread, the caller that steps meets the errors of all. Here its own request still waits."""
    llm = tiny.llm(max_num_seqs=1)
    other = llm.stream(list(PROMPTS[0]), GREEDY)
    next(other)
    call, errors = Transformer.__call__, [ZeroDivisionError("in the model")]

    def broken(self, batch, cache):
        if errors:
            raise errors.pop()
        return call(self, batch, cache)

    monkeypatch.setattr(Transformer, "__call__", broken)
    output = llm.generate(list(PROMPTS[1]), GREEDY)[0]
    assert output.outputs[0].token_ids == alone(PROMPTS[1]) and errors == []
    with pytest.raises(ZeroDivisionError):
        list(other)
    tiny.assert_idle(llm)


def test_a_request_that_is_cancelled_in_the_inbox_is_never_added():
    llm, gate = started(), threading.Event()
    arrived = llm.engine._num_arrived
    busy = llm._loop._call(gate.wait)
    adding = llm._loop.add(PROMPTS[0], LONG)
    assert adding.cancel()
    gate.set()
    assert busy.result(10)
    assert llm.generate(list(PROMPTS[1]), GREEDY)[0].outputs[0].token_ids == alone(PROMPTS[1])
    assert llm.engine._num_arrived == arrived + 1
    tiny.assert_idle(llm)


@pytest.mark.parametrize("make", [tiny.llm, started])
def test_an_error_of_the_model_reaches_those_in_the_step_and_the_engine_goes_on(make, monkeypatch):
    llm = make()
    with monkeypatch.context() as patch:
        patch.setattr(Transformer, "__call__", lambda *_: 1 / 0)
        with pytest.raises((ZeroDivisionError, RequestError), match="division by zero"):
            llm.generate(list(PROMPTS[0]), GREEDY)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(collect(llm, PROMPTS[0]))
    assert asyncio.run(collect(llm, PROMPTS[0])) == alone(PROMPTS[0])
    tiny.assert_idle(llm)


def test_waiting_requests_are_bounded_if_asked():
    with pytest.raises(ValueError, match="max_num_waiting=0: give an integer of at least 1"):
        tiny.llm(max_num_waiting=0)
    llm = tiny.llm(max_num_seqs=1, max_num_waiting=2)
    with pytest.raises(
        QueueFullError, match="2 requests are waiting and max_num_waiting is 2: try again later"
    ):
        llm.generate([list(prompt) for prompt in PROMPTS], GREEDY)
    tiny.assert_idle(llm)

    async def main():
        return await asyncio.gather(
            *(collect(llm, PROMPTS[0], LONG) for _ in range(9)), return_exceptions=True
        )

    found = asyncio.run(main())
    refused = [one for one in found if isinstance(one, QueueFullError)]
    assert 0 < len(refused) < 9
    assert [one for one in found if one not in refused] == [alone(PROMPTS[0], LONG)] * (9 - len(refused))
    tiny.assert_idle(llm)


def test_submitted_prompts_come_together_and_none_stays_if_one_is_refused():
    with started(trace=True) as llm:
        outputs = llm.submit([list(prompt) for prompt in PROMPTS], GREEDY)
        llm._loop.wait(outputs, lambda: all(output.finished for output in outputs))
        assert [output.outputs[0].token_ids for output in outputs] == [alone(prompt) for prompt in PROMPTS]
        with pytest.raises(RequestError, match="the prompt is empty"):
            llm.submit([list(PROMPTS[0]), [], list(PROMPTS[1])], LONG)
        tiny.assert_idle(llm)


def test_a_cancelled_stream_may_not_have_been_added_yet():
    llm = tiny.llm()

    async def main():
        tasks = [asyncio.create_task(collect(llm, PROMPTS[0], LONG)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[1:]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, *others = asyncio.run(main())
    assert first == alone(PROMPTS[0], LONG)
    assert all(isinstance(other, asyncio.CancelledError) for other in others)
    llm.generate(list(PROMPTS[1]), GREEDY)  # behind whatever was left in the inbox
    tiny.assert_idle(llm)


def test_an_event_loop_that_is_gone_holds_nothing_up():
    llm = tiny.llm()

    async def leave():
        stream = llm.astream(list(PROMPTS[0]), LONG)
        await anext(stream)
        return stream

    events = asyncio.new_event_loop()
    stream = events.run_until_complete(leave())
    events.close()
    assert llm.generate(list(PROMPTS[1]), GREEDY)[0].outputs[0].token_ids == alone(PROMPTS[1])
    del stream


def test_closing_ends_the_thread_and_tells_those_who_wait():
    llm = started()
    thread = llm._loop._thread

    async def main():
        stream = llm.astream(list(PROMPTS[0]), LONG)
        await anext(stream)
        await asyncio.to_thread(llm.close)
        with pytest.raises(RuntimeError, match="closed: make a new one"):
            async for _ in stream:
                pass
        with pytest.raises(RuntimeError, match="closed: make a new one"):
            await collect(llm, PROMPTS[0])

    asyncio.run(main())
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="closed: make a new one"):
        llm.generate(list(PROMPTS[0]))
    llm.close()


def test_an_llm_that_nobody_holds_takes_its_thread_with_it():
    llm = started()
    thread, memory = llm._loop._thread, weakref.ref(llm.engine.runner.cache.layers[0].k)
    del llm
    gc.collect()
    thread.join(10)
    gc.collect()
    assert not thread.is_alive() and memory() is None


@pytest.mark.slow
def test_python_exits_cleanly_in_the_midst_of_a_step():
    script = """
import asyncio
from minillm import LLM, SamplingParams

async def main():
    stream = llm.astream([5] * 20, SamplingParams(max_tokens=400, ignore_eos=True))
    await anext(stream)

llm = LLM("tinytales", max_num_seqs=2)
events = asyncio.new_event_loop()
events.run_until_complete(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "terminate" not in done.stderr, done.stderr


class Panic(BaseException):
    """Something that ends a thread."""


def test_the_end_of_the_thread_ends_its_requests_and_rebuild_starts_again(monkeypatch):
    llm, deaths, told, step = tiny.llm(max_num_seqs=1), [], [], Engine._step
    llm.supervise(Turns(), deaths.append)
    llm.start()

    def panics(self):
        raise Panic

    monkeypatch.setattr(Engine, "_step", panics)
    # All are queued before the first step can fail.
    with llm._loop._lock:
        adding = [llm.enqueue(list(prompt), GREEDY, listener=told.append) for prompt in PROMPTS]
    outputs = [one.result(10) for one in adding if one.exception(10) is None]
    llm._loop._thread.join(10)
    assert len(deaths) == 1 and isinstance(deaths[0], Panic) and not llm.alive
    assert outputs and all(output.outputs[0].finish_reason == "error" for output in outputs)
    assert all(llm.blames_engine(output.error) for output in outputs)
    assert sum(delta.finish_reason == "error" for deltas in told for delta in deltas) == len(outputs)
    with pytest.raises(RuntimeError, match=r"rebuild\(\)"):
        llm.generate(list(PROMPTS[0]), GREEDY)
    monkeypatch.setattr(Engine, "_step", step)
    llm.rebuild()
    assert llm.alive and tiny.tokens(llm.generate(list(PROMPTS[0]), GREEDY)) == [[alone(PROMPTS[0])]]
    llm.close()
    assert not llm.alive


def test_engines_that_share_turns_never_step_at_once(monkeypatch):
    llms, turns, inside, step = [tiny.llm(), tiny.llm()], Turns(), [], Engine._step

    def alone_inside(self):
        inside.append(self)
        time.sleep(0.001)
        assert inside == [self]
        outputs = step(self)
        inside.remove(self)
        return outputs

    monkeypatch.setattr(Engine, "_step", alone_inside)
    for llm in llms:
        llm.supervise(turns, print)
        llm.start()
    outputs = [llm.submit(list(PROMPTS[0]), LONG)[0] for llm in llms]
    for llm, output in zip(llms, outputs, strict=True):
        llm._loop.wait([output], lambda o=output: o.finished)
        assert output.error is None
        llm.close()
