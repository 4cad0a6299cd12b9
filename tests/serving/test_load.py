"""A busy server loses nothing, holds nothing, and survives what clients and operators do.

These are short versions. benchmarks/serving.py has the full ones.
"""

import json
import signal
import threading
import time

import pytest

from minillm import LLM, SamplingParams
from minillm.engine.runner import Runner
from minillm.serving.registry import Registry
from minillm.serving.server import Server
from tests.engine import tiny
from tests.serving import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url():
    """A server of the tiny model, with a queue of at most 16."""
    llm = tiny.llm(max_num_seqs=8, max_num_waiting=16)
    with Server(Registry({"tiny": llm})) as server:
        yield server.url
    llm.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("serving")


def test_twice_the_capacity(url):
    _, alone = load.run_load(url, "tiny", 200, concurrency=24)
    answers, report = load.run_load(url, "tiny", 500, rate=2 * alone.requests_per_second, seed=1)
    assert len(answers) == 500 == report.num_completed + sum(report.errors.values())
    assert set(report.errors) == {"HTTP 429"} and report.num_completed >= 16 + 8
    # An admitted request waits for at most 16 others and the 8 that run. With all 500 in a queue, p99 would be 20 times
    # that; the rate changes with what else runs on the machine, so 6 times is allowed.
    assert report.latency.p99 <= 1e3 * 6 * (16 + 8) / report.requests_per_second
    load.wait_until(lambda: load.idle(url))


def test_disconnects_at_random_moments(url):
    begun = sum(
        load.disconnects(url, "tiny", 40, at_once=8, longest=longest, seed=seed)
        for seed, longest in ((0, 0.002), (1000, 0.1))
    )
    assert 0 < begun < 80  # some connections ended after their first byte, and some before it
    load.wait_until(lambda: load.idle(url), 5)
    assert load.fetch(url, load.COMPLETIONS, {"model": "tiny", "prompt": "a"})[0] == 200


def test_malformed_bodies(url):
    statuses, failed = load.fuzz(url, "tiny", 250)
    assert not failed
    assert set(statuses) <= {200, 400, 404, 413} and statuses[400] > 100
    load.wait_until(lambda: load.idle(url))


def test_a_slow_reader_holds_up_no_other(folder):
    with LLM("tinytales", max_num_seqs=16, max_model_len=1024) as llm, Server(llm) as server:
        _, alone = load.run_load(server.url, "tinytales", 16, concurrency=2, output_len=16)
        socks = load.slow_readers(server.url, "tinytales", 4, max_tokens=500)
        load.wait_until(lambda: load.gauges(server.url)["running"] == 4)
        # The engine finishes their requests without a reader: 4 x 500 reports of 20 tokens are megabytes.
        load.wait_until(lambda: load.idle(server.url), 60)
        _, report = load.run_load(server.url, "tinytales", 16, concurrency=2, output_len=16, seed=1)
        assert report.num_completed == 16
        assert report.latency.p50 <= 2 * alone.latency.p50
        for sock in socks:
            with sock:
                *chunks, last = load.read_all(sock)
            tokens = [json.loads(chunk)["choices"][0]["logprobs"]["tokens"] for chunk in chunks]
            assert last == load.DONE and sum(map(len, tokens)) == 500


def test_two_models_at_once(folder):
    params = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)
    models = {name: LLM(name, max_model_len=256, max_num_seqs=8) for name in ("tinytales", "tinytales-draft")}
    expected = {
        name: llm.generate("Once upon", params, use_tqdm=False)[0].outputs[0].text
        for name, llm in models.items()
    }
    with Server(Registry(models)) as server:
        reports = {}

        def run(name):
            reports[name] = load.run_load(server.url, name, 24, concurrency=4, output_len=16)[1]

        threads = [threading.Thread(target=run, args=(name,)) for name in models]
        for thread in threads:
            thread.start()
        texts = {name: [text_of(server.url, name) for _ in range(3)] for name in models}
        for thread in threads:
            thread.join(60)
        assert [reports[name].num_completed for name in models] == [24, 24]
        assert texts == {name: 3 * [text] for name, text in expected.items()}
        assert load.idle(server.url)
    for llm in models.values():
        llm.close()


def text_of(url, model):
    body = {"model": model, "prompt": "Once upon", "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    status, _, answer = load.fetch(url, load.COMPLETIONS, body)
    assert status == 200
    return json.loads(answer)["choices"][0]["text"]


@pytest.mark.parametrize("fault", [MemoryError("injected"), SystemExit("injected")])
def test_an_engine_fault(fault, monkeypatch):
    """One in the model ends the requests of its step. One that is no Exception ends the engine's thread as well."""
    llm = tiny.llm(max_num_seqs=8)
    run, faults = Runner.run, [fault]

    def faulty(self, step):
        if faults and len(step.chunks) >= 4:
            raise faults.pop()
        return run(self, step)

    with Server(Registry({"tiny": llm})) as server:
        before = load.gauges(server.url)
        monkeypatch.setattr(Runner, "run", faulty)
        statuses = []

        def ask():
            body = {"model": "tiny", "prompt": "a", "max_tokens": 20, "ignore_eos": True}
            statuses.append(load.fetch(server.url, load.COMPLETIONS, body))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(statuses) == 6 and {status for status, _, _ in statuses} <= {200, 503}
        refused = [(headers, answer) for status, headers, answer in statuses if status == 503]
        assert refused and not faults
        for headers, answer in refused:
            assert int(headers["Retry-After"]) >= 1 and load.shaped(503, answer) and b"injected" not in answer
        load.wait_until(lambda: load.answers(server.url), 10)
        ask()
        assert statuses[-1][0] == 200
        load.wait_until(lambda: load.gauges(server.url) == before, 5)
    llm.close()


def test_sigkill_and_sigterm_under_load(folder):
    """After SIGKILL every client learns it at once. After SIGTERM running requests finish and new ones are refused."""
    process = load.Process(folder, "--max-num-seqs", "16")
    running = load.streams(process.url, "tinytales", 8, max_tokens=900)
    began = time.monotonic()
    process.end(signal.SIGKILL)
    assert not any(load.rest_of(*one) for one in running)
    assert time.monotonic() - began < 5

    process = load.Process(folder, "--max-num-seqs", "16", "--grace", "30", port=process.port)
    running = load.streams(process.url, "tinytales", 8, max_tokens=300)
    process.popen.send_signal(signal.SIGTERM)
    refused = 0
    while process.popen.poll() is None and refused < 3:
        try:
            body = {"model": "tinytales", "prompt": "a"}
            status, headers, _ = load.fetch(process.url, load.COMPLETIONS, body)
            refused += status == 503 and "Retry-After" in headers
        except OSError:
            refused += 1
    assert refused
    assert all(load.rest_of(*one) for one in running)
    assert process.popen.wait(30) == 0
    assert "Traceback" not in process.log.read_text()


def test_sigterm_aborts_what_the_grace_does_not_cover(folder):
    process = load.Process(folder, "--max-num-seqs", "8", "--grace", "0.2")
    running = load.streams(process.url, "tinytales", 8, max_tokens=900)
    began = time.monotonic()
    assert process.end() == 0
    assert time.monotonic() - began < 8
    assert not any(load.rest_of(*one) for one in running)
