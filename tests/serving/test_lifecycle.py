"""Engines that fail, queues that are full, and servers that stop."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from minillm import SamplingParams
from minillm.engine.engine import Engine
from minillm.serving.registry import MAX_RESTARTS, Registry
from minillm.serving.server import Server, _drain
from minillm.serving.sse import EventReader
from tests.engine import tiny
from tests.serving.client import error, events, get, post, raw, request, steps_of, wait_until

COMPLETIONS = "/v1/completions"
LONG = {"prompt": "a", "max_tokens": 90, "ignore_eos": True, "temperature": 0}
SHORT = {"prompt": "a", "max_tokens": 2, "ignore_eos": True, "temperature": 0}


class Panic(BaseException):
    """Something that no one expects, as a panic of a Rust library is."""


@pytest.fixture
def faults(monkeypatch):
    """Errors that the next steps of any engine raise."""
    errors, step = [], Engine._step

    def faulty(self):
        if errors:
            raise errors.pop(0)
        return step(self)

    monkeypatch.setattr(Engine, "_step", faulty)
    return errors


@pytest.mark.parametrize("fault", [RuntimeError("a kernel failed"), MemoryError(), Panic()])
def test_a_fault_is_503_and_then_the_engine_serves_again(faults, fault):
    llm = tiny.llm()
    with Server(llm) as server:
        good = post(server, COMPLETIONS, SHORT)[1]["choices"]
        faults.append(fault)
        status, headers, text = request(server, "POST", COMPLETIONS, SHORT)
        assert status == 503 and headers["Retry-After"] == "1"
        assert json.loads(text)["error"]["type"] == "ServiceUnavailableError"
        wait_until(lambda: get(server, "/health")[0] == 200)
        assert post(server, COMPLETIONS, SHORT)[1]["choices"] == good
        tiny.assert_idle(llm)


@pytest.mark.parametrize("fault", [RuntimeError("a kernel failed"), Panic()])
def test_a_fault_in_the_middle_of_a_stream_is_an_event(monkeypatch, faults, fault):
    with Server(tiny.llm()) as server, steps_of(monkeypatch) as steps:
        sock = raw(server, COMPLETIONS, LONG | {"stream": True})
        steps.allow(3)
        reader, found = EventReader(), []
        while not found:
            found += reader.feed(sock.recv(4096))
        faults.append(fault)
        steps.allow(1)
        while data := sock.recv(4096):
            found += reader.feed(data)
        last = json.loads(found[-1])
        assert last["error"]["code"] == 503 and "[DONE]" not in found
        steps.open = True
        sock.close()


def test_all_waiting_requests_learn_of_a_dead_engine(monkeypatch, faults):
    with Server(tiny.llm(max_num_seqs=1)) as server, steps_of(monkeypatch) as steps:
        statuses = []
        threads = [
            threading.Thread(target=lambda: statuses.append(post(server, COMPLETIONS, SHORT)[0]))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        [replica] = server.registry
        wait_until(lambda: replica.num_waiting + replica.num_running == 5)
        faults.append(Panic())
        steps.open = True
        for thread in threads:
            thread.join(20)
        assert len(statuses) == 5 and 503 in statuses and set(statuses) <= {200, 503}
        wait_until(lambda: get(server, "/health")[0] == 200)


def test_an_engine_that_always_fails_is_given_up(faults):
    with Server(Registry({"bad": tiny.llm(), "good": tiny.llm()})) as server:
        for _ in range(MAX_RESTARTS + 1):
            faults.append(Panic())
            assert error(server, COMPLETIONS, SHORT | {"model": "bad"})[0] == 503
            wait_until(lambda: "restarting" not in get(server, "/health")[1])
        status, text = get(server, "/health")
        assert status == 503 and "Panic" in json.loads(text)["engines"]["bad/0"]
        assert error(server, COMPLETIONS, SHORT | {"model": "bad"})[0] == 503
        assert post(server, COMPLETIONS, SHORT | {"model": "good"})[0] == 200
        assert get(server, "/metrics")[0] == 200


def test_a_request_that_fails_alone_leaves_the_others(server, monkeypatch):
    llm = server.registry.find("tiny").llm
    failing = llm.encode("z")[1][-1]
    named = type(llm.tokenizer).token_text

    def broken(self, token_id, before=()):
        if token_id == failing:
            raise KeyError("SECRET")
        return named(self, token_id, before)

    monkeypatch.setattr(type(llm.tokenizer), "token_text", broken)
    body = SHORT | {"logit_bias": {str(failing): 100}, "logprobs": 1}
    status, content = error(server, COMPLETIONS, body)
    assert status == 500 and "SECRET" not in content["message"]
    assert post(server, COMPLETIONS, SHORT)[0] == 200
    found = events(server, COMPLETIONS, body)
    assert json.loads(found[-1])["error"]["code"] == 500


def test_a_full_queue_is_429_with_the_time_to_wait(monkeypatch):
    llm = tiny.llm(max_num_seqs=1, max_num_waiting=2)
    with Server(llm) as server, steps_of(monkeypatch) as steps:
        socks, [replica] = [], server.registry
        for admitted in range(3):
            socks.append(raw(server, COMPLETIONS, LONG))
            if not admitted:
                steps.allow(1)
                wait_until(lambda: replica.num_running == 1)
            wait_until(lambda n=admitted: replica.num_waiting == n)
        status, headers, text = request(server, "POST", COMPLETIONS, SHORT)
        assert status == 429 and int(headers["Retry-After"]) >= 1
        assert json.loads(text)["error"]["type"] == "RateLimitError"
        steps.open = True
        for sock in socks:
            assert b" 200 OK" in sock.recv(1 << 16)
            sock.close()
        assert post(server, COMPLETIONS, SHORT)[0] == 200


def test_a_stopping_server_finishes_what_runs_and_refuses_the_rest(monkeypatch):
    import asyncio

    llm = tiny.llm()
    with Server(llm) as server, steps_of(monkeypatch) as steps:
        results = {}

        def ask(name, body):
            results[name] = post(server, COMPLETIONS, body)[0]

        [own], [replica] = llm.submit([7], SamplingParams(max_tokens=9)), server.registry
        adding = threading.Thread(
            target=ask, args=("adding", LONG)
        )  # the engine is in a step, and has not seen it
        adding.start()
        wait_until(lambda: len(replica._adding) == 1)
        drain = threading.Thread(target=lambda: asyncio.run(_drain(server.service, 30)))
        drain.start()
        wait_until(lambda: server.service.draining)
        status, headers, _ = request(server, "POST", COMPLETIONS, SHORT)
        assert status == 503 and "Retry-After" in headers
        assert json.loads(get(server, "/health")[1])["status"] == "shutting down"
        drain.join(0.1)
        assert drain.is_alive()  # it waits for the request
        steps.open = True
        for thread in (adding, drain):
            thread.join(20)
        assert results == {"adding": 200} and own.finished


def test_what_does_not_finish_in_time_is_aborted(monkeypatch):
    import asyncio

    llm = tiny.llm()
    with Server(llm) as server, steps_of(monkeypatch) as steps:
        statuses = []
        thread = threading.Thread(target=lambda: statuses.append(post(server, COMPLETIONS, LONG)[0]))
        thread.start()
        wait_until(lambda: llm.engine.has_unfinished)
        drain = threading.Thread(target=lambda: asyncio.run(_drain(server.service, 0.05)))
        drain.start()
        time.sleep(0.1)
        steps.allow(2)
        thread.join(20)
        drain.join(20)
        assert statuses == [503]
        wait_until(lambda: not llm.engine.has_unfinished)
        tiny.assert_idle(llm)


def command(*arguments, **environment):
    process = subprocess.Popen(
        [sys.executable, "-m", "minillm.cli", "serve", *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    line = process.stdout.readline()
    assert " at http://127.0.0.1:" in line, process.stderr.read()
    return process, SimpleNamespace(url=line.split()[-1])


@pytest.mark.slow
def test_the_command_ends_well_after_sigterm():
    process, server = command(
        "tinytales", "small=tinytales-draft", "--replicas", "small=2", "--max-model-len", "256", "--grace", "20",
        "--kv-cache-memory-bytes", "tinytales=8388608", MINILLM_API_KEY="key",
    )  # fmt: skip
    try:
        assert json.loads(get(server, "/health")[1])["engines"] == {
            "tinytales/0": "ok", "small/0": "ok", "small/1": "ok",
        }  # fmt: skip
        assert get(server, "/v1/models")[0] == 401
        authorised = {"Authorization": "Bearer key"}
        for model in ("tinytales", "small"):
            body = {"model": model, "prompt": "Once", "max_tokens": 5}
            assert post(server, COMPLETIONS, body, **authorised)[0] == 200
        sock = raw(server, COMPLETIONS, LONG | {"max_tokens": 200, "stream": True}, **authorised)
        reader, found = EventReader(), []
        while not found:
            found += reader.feed(sock.recv(4096))
        process.send_signal(signal.SIGTERM)
        while data := sock.recv(1 << 16):
            found += reader.feed(data)
        sock.close()
        assert "[DONE]" in found
        assert process.wait(20) == 0
        out, err = process.communicate()
        assert "Traceback" not in err and "Once" not in out + err
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_second_signal_ends_the_command_at_once():
    process, server = command("tinytales", "--grace", "60")
    try:
        sock = raw(server, COMPLETIONS, LONG | {"max_tokens": 1000, "stream": True})
        sock.recv(4096)
        process.send_signal(signal.SIGINT)
        wait_until(lambda: get(server, "/health")[0] == 503)
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
        sock.close()
    finally:
        process.kill()
        process.communicate()
