"""The feed of the live page: late pages, slow pages, pages that go; its memory; and who may read it."""

import gc
import http.client
import json
import socket
import threading
import time
import tracemalloc
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import urlsplit
from weakref import ref

import pytest

from minillm import LLM, SamplingParams
from minillm.measure.trace import (
    BlockCounts,
    Phases,
    RequestAdded,
    RequestFinished,
    RequestState,
    ScheduledRequest,
    Snapshot,
    StepRecord,
    TokenRecord,
    Trace,
)
from minillm.player.recording import Recording
from minillm.serving import feed as feed_module
from minillm.serving.feed import Feed, TooManyPagesError, feed_of
from minillm.serving.registry import Registry
from minillm.serving.server import Server
from minillm.serving.settings import Settings
from minillm.serving.sse import EventReader
from tests.engine import tiny
from tests.player.replay import Replay

PATIENCE = 60.0


class Page:
    """A page: what it was sent, replayed."""

    def __init__(self, feed):
        self.feed, self.cursor, self.replay, self.num_whole, self.news = (
            feed,
            None,
            Replay(),
            0,
            threading.Event(),
        )

    def read(self):
        """Read what there is. Return the number of characters of JSON."""
        news = self.feed.news(self.cursor)
        if news is None:
            return 0
        self.cursor, text = news
        self.take(json.loads(text))
        return len(text)

    def take(self, piece):
        if piece.pop("whole", False):
            self.replay, self.same = Replay(), piece.pop("same")
            self.num_whole += 1
        self.replay.append(piece)

    def read_until(self, done):
        deadline = time.monotonic() + PATIENCE
        while not done(self.replay):
            assert time.monotonic() < deadline, self.replay
            self.news.wait(0.05)
            self.news.clear()
            self.read()

    def texts(self):
        return {name: "".join(words) for name, words in zip(self.replay.ids, self.replay.texts, strict=True)}


@contextmanager
def watching(feed):
    page = Page(feed)
    with feed.watched(page.news.set):
        page.read_until(lambda replay: replay.num_events)
        yield page


@pytest.fixture
def llm():
    with tiny.llm(block_size=4) as llm:
        llm.start()
        yield llm


def test_an_llm_has_one_feed_for_all_of_its_servers(llm):
    with Server(llm) as one, Server(llm) as two:
        (name,) = one.app.state.live.feeds
        with stream(one, name) as first, stream(two, name) as second:
            for replay, pieces in ((Replay(), first), (Replay(), second)):
                piece = next(pieces)
                replay.append(piece)
                say(llm)
                while not replay.finished:
                    replay.append(next(pieces))


def test_a_feed_does_not_keep_its_llm_alive():
    llm = tiny.llm()
    feed = feed_of(llm)
    assert feed_of(llm) is feed
    weak = ref(llm)
    del llm
    gc.collect()
    assert weak() is None


@pytest.fixture
def feed(llm):
    feed = Feed(llm)
    yield feed
    feed.close()


def say(llm, num_requests=1, max_tokens=8, **params):
    """Run requests to their ends; return their outputs."""
    prompts = [[20 + i, 21, 22, 23, 24] for i in range(num_requests)]
    outputs = llm.submit(prompts, SamplingParams(max_tokens=max_tokens, ignore_eos=True, seed=1, **params))
    deadline = time.monotonic() + PATIENCE
    while not all(output.finished for output in outputs):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return outputs


def whole_text(llm, output):
    return llm.tokenizer.decode(
        output.prompt_token_ids + output.outputs[0].token_ids, skip_special_tokens=False
    )


def test_nothing_is_recorded_while_no_page_watches(llm, feed, monkeypatch):
    monkeypatch.setattr(feed_module, "LINGER", 0.0)
    say(llm)
    assert llm.engine.trace is None and feed.news(None) is None
    with watching(feed):
        assert llm.engine.trace is not None
    deadline = time.monotonic() + PATIENCE
    while llm.engine.trace is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert feed.news(None) is None
    with watching(feed) as page:  # and again
        say(llm)
        page.read_until(lambda replay: len(replay.finished) == 1)


def test_a_page_sees_what_is_said(llm, feed):
    with watching(feed) as page:
        outputs = say(llm, 3)
        page.read_until(lambda replay: len(replay.finished) == 3)
        said = page.texts()
    for output in outputs:
        text = whole_text(llm, output)
        assert "\ufffd" in text or said[output.request_id] == text
    assert page.num_whole == 1


def test_a_late_page_gets_the_state_so_far_and_then_the_same(llm, feed):
    with watching(feed) as early:
        say(llm, 2)
        early.read_until(lambda replay: len(replay.finished) == 2)
        with watching(feed) as late:
            assert late.replay == early.replay
            say(llm)
            for page in (early, late):
                page.read_until(lambda replay: len(replay.finished) == 3)
            assert late.replay == early.replay


def test_a_page_that_comes_first_in_the_middle_gets_the_unfinished_requests(llm, feed):
    outputs = llm.submit([[20, 21, 22, 23, 24]] * 2, SamplingParams(max_tokens=80, ignore_eos=True, seed=1))
    while not outputs[0].outputs[0].token_ids:
        time.sleep(0.0005)
    with watching(feed) as page:
        page.read_until(lambda replay: len(replay.finished) == 2)
        assert [len(words) for words in page.replay.texts] == [85, 85]


def test_pages_at_the_same_place_share_one_piece(llm, feed):
    with watching(feed) as a, watching(feed):
        say(llm)
        time.sleep(0.2)
        (_, first), (_, second) = feed.news(a.cursor), feed.news(a.cursor)
        assert first is second


def test_a_slow_page_gets_one_piece_of_bounded_size(llm, monkeypatch):
    feed = Feed(llm, span=2000)
    with watching(feed) as slow, watching(feed) as prompt:
        for _ in range(12):
            say(llm, 4, 40)
            prompt.read()
        prompt.read_until(lambda replay: len(replay.steps) and not llm.engine.has_unfinished)
        num_characters = slow.read()
        assert 0 < num_characters < 12 * 2 * 2000 and slow.num_whole == 2 and slow.same
        prompt.read()
        assert slow.replay.texts[-4:] == prompt.replay.texts[-4:]
        assert prompt.num_whole > 2
    feed.close()


def test_a_page_of_an_engine_with_a_trace_of_its_own_leaves_the_trace_as_it_is():
    with tiny.llm(trace=True) as llm:
        llm.start()
        feed, trace = Feed(llm), llm.trace
        with watching(feed) as page:
            say(llm)
            page.read_until(lambda replay: len(replay.finished) == 1)
        feed.close()
        assert llm.trace is trace and len(trace.of(TokenRecord)) == 8 and len(trace.of(RequestAdded)) == 1


def test_a_page_of_such_an_engine_begins_with_the_snapshot(monkeypatch):
    with tiny.llm(trace=True) as llm:
        llm.start()
        watch = LLM.watch

        def late(self, trace):
            num_records = len(trace)
            while len(trace) < num_records + 5:
                time.sleep(0.001)
            watch(self, trace)

        monkeypatch.setattr(LLM, "watch", late)
        feed = Feed(llm)
        output = llm.submit([[20, 21, 22]], SamplingParams(max_tokens=80, ignore_eos=True))[0]
        with watching(feed) as page:
            page.read_until(lambda replay: replay.finished)
            assert page.num_whole == 1 and len(page.replay.texts[0]) == 83
        assert output.finished
        feed.close()


def test_a_rebuilt_engine_is_watched_again(llm, feed):
    with watching(feed) as page:
        say(llm)
        page.read_until(lambda replay: len(replay.finished) == 1)
        llm.rebuild(block_size=8)
        page.read_until(lambda replay: page.num_whole == 2)
        assert not page.same
        outputs = say(llm)
        page.read_until(lambda replay: len(replay.finished) == 1)
        assert list(page.replay.finished) == [outputs[0].request_id]


def test_the_feed_of_a_closed_llm_waits_and_ends(llm):
    feed = Feed(llm)
    with watching(feed):
        llm.close()
        time.sleep(0.2)
        assert feed._thread.is_alive()
    thread = feed._thread
    feed.close()
    assert not thread.is_alive()


def test_more_pages_than_the_limit_are_refused(llm, feed, monkeypatch):
    monkeypatch.setattr(feed_module, "MAX_PAGES", 2)
    refused = pytest.raises(TooManyPagesError, match="2 pages watch")
    with watching(feed), watching(feed), refused, feed.watched(lambda: None):
        pass
    with watching(feed):
        pass


def imagined(num_tokens):
    """The records of a run without an engine: four requests at a time, of 40 tokens each, with new ids and words."""
    running = {}
    for step in range(num_tokens // 4):
        while len(running) < 4:
            running[name := f"request {step} {len(running)}"] = 8
            yield RequestAdded(0.0, name, 8, [(step + i) % 997 for i in range(8)])
        for name, length in running.items():
            yield TokenRecord(0.0, name, length - 8, (step * 7 + length) % 4001)
        tables = {name: list(range(length // 16 + 1)) for name, length in running.items()}
        parts = [ScheduledRequest(name, "decode", running[name] - 1, 1, 0, tables[name]) for name in running]
        yield StepRecord(step, 0.0, 0.0, parts, 0, 4, Phases(0, 0, 0, 0), BlockCounts(64, 50, 3))
        yield [RequestState(name, 8, [1] * (n + 1), n, tables[name]) for name, n in running.items()]
        for name in [*running]:
            running[name] += 1
            if running[name] == 48:
                del running[name]
                yield RequestFinished(0.0, name, "length")


@pytest.mark.slow
def test_memory_stays_bounded_over_a_hundred_thousand_events():
    trace = Trace()
    recording = Recording(trace, {"block_size": 16}, rolling=True)
    trace.append(Snapshot(0.0, 0, []))
    num_bytes = []
    tracemalloc.start()
    for record in imagined(85_000):
        if not isinstance(record, list):
            trace.append(record)
        elif len(trace) > 100:
            recording.extend()
            if recording.num_events // 10_000 > len(num_bytes):
                num_bytes.append(tracemalloc.get_traced_memory()[0])
            if recording.size > 20_000:
                trace.append(Snapshot(0.0, 0, record))
    tracemalloc.stop()
    assert recording.num_events > 100_000 and len(trace) < 200
    assert recording.num_events - recording.first < 12_000 and len(recording._requests) < 300
    assert len(num_bytes) > 9 and max(num_bytes[3:]) < 1.5 * num_bytes[2], num_bytes


@pytest.mark.slow
def test_the_memory_of_a_real_feed_is_bounded():
    with tiny.llm(block_size=4, max_num_seqs=8) as llm:
        llm.start()
        feed = Feed(llm, span=3000)
        with watching(feed) as page:
            for _ in range(16):
                say(llm, 8, 60)
                page.read()
                recording = feed._recording
                assert recording.num_events - recording.first < 6000
                assert len(feed._source) < 6000 and len(feed._pieces) <= 1
                assert len(recording._requests) <= 80
            assert recording.num_events > 8000 and page.num_whole > 3
        feed.close()


# ------------------------------------------------------------------------------------------------------------ By HTTP


def get(server, path, **headers):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=PATIENCE)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return SimpleNamespace(status=response.status, headers=response.headers, body=body)


@contextmanager
def stream(server, model="tiny", **headers):
    """The pieces of a feed, one after another."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=PATIENCE)
    connection.request("GET", f"/live/{model}", headers=headers)
    response, reader = connection.getresponse(), EventReader()
    assert response.status == 200, response.read()

    def pieces():
        while chunk := response.read1():
            yield from map(json.loads, reader.feed(chunk))

    try:
        yield pieces()
    finally:
        connection.close()


def complete(server, max_tokens=8):
    body = {"model": "tiny", "prompt": [20, 21, 22], "max_tokens": max_tokens, "ignore_eos": True, "seed": 1}
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=PATIENCE)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    body = json.loads(response.read())
    connection.close()
    assert response.status == 200, body
    return body


def test_the_page_and_its_files_ask_for_nothing_from_elsewhere(server):
    page = get(server, "/")
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    for name in ("page/live.js", "page/live.css", "page/player.js"):
        file = get(server, f"/{name}")
        assert file.status == 200 and file.headers["x-content-type-options"] == "nosniff"
        assert "http" not in file.body.replace("http://www.w3.org/2000/svg", "")
    assert "http" not in page.body
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy
    for path in ("/page/nothing.js", "/page/../server.py", "/page/%2e%2e%2fserver.py"):
        assert get(server, path).status == 404


def test_the_page_says_whose_prompts_it_shows(server):
    about = json.loads(get(server, "/live").body)
    assert about["models"] == [{"name": "tiny", "chat": True, "num_engines": 1}]
    assert "of all users" in about["notice"] and "only this machine" in about["notice"]


def test_a_stream_has_what_the_server_does(server):
    with stream(server) as pieces:
        replay = Replay()
        first = next(pieces)
        assert first.pop("whole") and not first.pop("same")
        replay.append(first)
        said = complete(server)
        while len(replay.finished) < 1:
            replay.append(next(pieces))
        assert len(replay.origins[-1]) == said["usage"]["completion_tokens"] == 8


def test_a_reader_that_never_reads_holds_up_nobody(server, monkeypatch):
    piece = Feed._piece
    padding = "x" * 4_000_000  # no socket takes this much from a client that does not read

    def padded(self, recording, cursor):
        return json.dumps({**json.loads(piece(self, recording, cursor)), "padding": padding})

    monkeypatch.setattr(Feed, "_piece", padded)
    host, port = urlsplit(server.url).hostname, urlsplit(server.url).port
    stuck = [socket.create_connection((host, port)) for _ in range(3)]
    for one in stuck:
        one.sendall(b"GET /live/tiny HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with stream(server) as pieces:
        next(pieces)
        num_finished = 0
        for _ in range(5):
            complete(server, 20)
        while num_finished < 5:
            num_finished += sum(event[0] == "finish" for event in next(pieces)["events"])
    feed = server.app.state.live.feeds["tiny"][0]
    assert len(feed._pages) >= 3 and len(feed._pieces) <= 3, "one piece for each place, and no queue"
    for one in stuck:
        one.close()


def test_a_page_that_goes_away_is_forgotten(server):
    feed = server.app.state.live.feeds["tiny"][0]
    before = len(feed._pages)
    with stream(server) as pieces:
        next(pieces)
        assert len(feed._pages) > 0
    deadline = time.monotonic() + PATIENCE
    while len(feed._pages) > before or feed._pages:
        complete(server, 2)
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("path", ["/live/nothing", "/live/tiny?engine=1", "/live/tiny?engine=-1"])
def test_an_engine_that_is_not_there_is_said(server, path):
    reply = get(server, path)
    assert reply.status == 404 and "no engine" in json.loads(reply.body)["error"]["message"]


@pytest.mark.parametrize("path", ["/", "/live", "/live/tiny"])
def test_a_name_that_is_not_this_machines_is_refused(server, path):
    reply = get(server, path, Host="attacker.example")
    assert reply.status == 403 and "--live" in json.loads(reply.body)["error"]["message"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_the_script_of_another_site_is_refused(server, site):
    asked_by_script = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "empty"}
    assert get(server, "/live", **asked_by_script).status == 403
    assert get(server, "/live/tiny", **asked_by_script).status == 403
    assert get(server, "/", **{"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "iframe"}).status == 200


@pytest.fixture(scope="module")
def idle():
    with tiny.llm() as llm:
        llm.name = "tiny"
        yield llm


def test_with_a_key_the_page_asks_for_it(idle):
    with Server(Registry({"a/b": idle}), settings=Settings(api_key="secret")) as server:
        assert get(server, "/").status == get(server, "/page/live.js").status == 200
        assert get(server, "/live").status == get(server, "/live/a/b").status == 401
        with stream(server, "a/b", Authorization="Bearer secret") as pieces:
            assert next(pieces)["whole"]


@pytest.mark.parametrize(
    ("host", "live", "status"), [("0.0.0.0", None, 404), ("0.0.0.0", True, 200), ("localhost", None, 200)]
)
def test_a_server_for_other_machines_has_the_page_only_if_asked(idle, host, live, status):
    with Server(Registry({"tiny": idle}), host=host, settings=Settings(live=live)) as server:
        for path in ("/", "/live"):
            reply = get(server, path, Host="minillm.example" if live else "localhost")
            assert reply.status == status
            assert status == 200 or "--live" in json.loads(reply.body)["error"]["message"]
        assert status == 200 or get(server, "/live/tiny").status == 404


def test_a_server_with_pages_stops_at_once(idle):
    with Server(Registry({"tiny": idle})) as server, stream(server) as pieces:
        next(pieces)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 1.5
        assert list(pieces) == []
