"""Clients that go away, and clients that do not read: their requests end, and no other request waits."""

import asyncio
import json
import socket
import threading
import time

import pytest

from minillm.engine.request import Delta
from minillm.serving.generation import Mailbox, Notifier, merge
from minillm.serving.server import Server
from minillm.serving.sse import EventReader
from tests.engine import tiny
from tests.serving.client import chunks, post, raw, steps_of, wait_until

COMPLETIONS = "/v1/completions"
LONG = {"prompt": "a", "max_tokens": 90, "ignore_eos": True, "temperature": 0}


def first_event(sock):
    reader, events = EventReader(), []
    while not events:
        events = reader.feed(sock.recv(4096))
    return events


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("state", ["waiting", "running"])
@pytest.mark.parametrize("half", [False, True])
def test_a_disconnect_aborts_within_one_step(monkeypatch, stream, state, half):
    llm = tiny.llm(max_num_seqs=1)
    with Server(llm) as server, steps_of(monkeypatch) as steps:
        [replica] = server.registry
        blocker = None
        if state == "waiting":
            blocker = raw(server, COMPLETIONS, LONG)
            wait_until(lambda: llm.engine.has_unfinished)
        sock = raw(server, COMPLETIONS, LONG | {"stream": stream})
        wait_until(lambda: replica.num_waiting == 1 + (blocker is not None))
        steps.allow(2)
        wait_until(lambda: steps.done == 2 and server.service.num_open == 1 + (blocker is not None))
        if half:
            sock.shutdown(
                socket.SHUT_WR
            )  # a client that will send nothing more is gone, for HTTP/1.1 servers
        else:
            sock.close()
        wait_until(lambda: server.service.num_open == (blocker is not None))
        steps.allow(1)  # at most the step that had begun
        expected = 1 if state == "waiting" else 0
        wait_until(lambda: replica.num_running == expected and replica.num_waiting == 0)
        assert steps.done <= 3
        if blocker is not None:
            blocker.close()
        steps.open = True
        wait_until(lambda: not llm.engine.has_unfinished)
        tiny.assert_idle(llm)
        assert llm.engine.counters.finished["abort"] == 1 + (blocker is not None)
        sock.close()


def test_a_disconnect_ends_all_samples_of_all_prompts(monkeypatch):
    llm = tiny.llm()
    with Server(llm) as server, steps_of(monkeypatch) as steps:
        sock = raw(
            server, COMPLETIONS, LONG | {"prompt": ["a", "b"], "n": 2, "temperature": 1, "stream": True}
        )
        steps.allow(3)
        first_event(sock)
        sock.close()
        steps.open = True
        wait_until(lambda: server.service.num_open == 0 and not llm.engine.has_unfinished)
        tiny.assert_idle(llm)


def test_a_finished_request_is_not_aborted():
    llm = tiny.llm()
    with Server(llm) as server:
        post(server, COMPLETIONS, LONG)
        chunks(server, COMPLETIONS, LONG)
        wait_until(lambda: server.service.num_open == 0)
    assert llm.engine.counters.finished == {"length": 2}


def test_a_slow_reader_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(socket.socket, "listen", _with_small_buffers(socket.socket.listen))
    llm = tiny.llm()
    with Server(llm) as server:
        body = {"prompt": "a", "n": 4, "max_tokens": 90, "ignore_eos": True, "logprobs": 20, "stream": True}
        slow = raw(server, COMPLETIONS, body, receive_buffer=4096)  # half a megabyte that it does not read
        wait_until(lambda: llm.engine.has_unfinished)
        assert post(server, COMPLETIONS, {"prompt": "a", "max_tokens": 3})[0] == 200
        wait_until(lambda: not llm.engine.has_unfinished, 60)  # the engine finished it without a reader
        assert server.service.num_open == 1
        reader, events = EventReader(), []
        while not events or events[-1] != "[DONE]":
            events += reader.feed(slow.recv(1 << 16))
        choices = [one for event in events[:-1] for one in json.loads(event)["choices"]]
        tokens = [0] * 4
        for choice in choices:
            tokens[choice["index"]] += len(choice["logprobs"]["tokens"])
        assert tokens == [90] * 4
        assert len(choices) < 4 * 90 / 2  # fewer and longer parts
        slow.close()


def _with_small_buffers(listen):
    def smaller(self, backlog):
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return listen(self, backlog)

    return smaller


def test_parts_are_merged_in_order():
    parts = [
        (0, Delta(0, "a", [1], None)),
        (0, Delta(1, "x", [7], None)),
        (0, Delta(0, "b", [2, 3], "stop", "b")),
    ]
    assert merge(parts) == [(0, Delta(0, "ab", [1, 2, 3], "stop", "b")), (0, Delta(1, "x", [7], None))]


def test_a_mailbox_loses_nothing_between_threads():
    async def main():
        notifier = Notifier(asyncio.get_running_loop())
        mailboxes = [Mailbox(notifier, only_ends=False) for _ in range(3)]

        def write():
            for i in range(2000):
                for mailbox in mailboxes:
                    mailbox.listener(0)([Delta(0, "", [i], "stop" if i == 1999 else None)])
                if i % 100 == 0:
                    time.sleep(0.001)

        thread = threading.Thread(target=write)
        thread.start()

        async def read(mailbox):
            found = []
            while True:
                for _, delta in await mailbox.take():
                    found += delta.token_ids
                    if delta.finish_reason:
                        return found

        found = await asyncio.gather(*map(read, mailboxes))
        thread.join()
        return found

    assert asyncio.run(main()) == [list(range(2000))] * 3
