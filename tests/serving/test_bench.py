"""`minillm bench` reports what a server with known delays did."""

import asyncio
import itertools
import json
import math
import selectors
import statistics
import threading
from contextlib import closing, contextmanager, suppress
from types import SimpleNamespace

import pytest

from minillm.cli import main
from minillm.serving import bench, streamed
from minillm.serving.bench import (
    BenchError,
    Load,
    Report,
    Slo,
    arrivals,
    measure,
    percentile,
    random_prompts,
)
from minillm.serving.sse import DONE, event
from minillm.serving.streamed import Answer

FIRST, GAP = 0.06, 0.02  # seconds


class Selector(selectors.DefaultSelector):
    """Waits for bytes only as long as they need on this machine. A longer time passes at once, in simulated seconds."""

    now = 0.0

    def select(self, timeout=None):
        found = super().select(0) or super().select(0.0 if timeout == 0 else 0.005)
        self.now += 1e-6 if found else timeout or 1e-6  # never nothing, so that a rate exists
        return found


class SimulatedTime(asyncio.SelectorEventLoop):
    """An event loop with a clock that a busy machine does not disturb."""

    def __init__(self):
        self.selector = Selector()
        super().__init__(self.selector)

    def time(self):
        return self.selector.now


def now():
    return asyncio.get_running_loop().time()


class Fake:
    """An OpenAI server that waits `first` seconds, and `gap` seconds before each further token."""

    def __init__(self, first=FIRST, gap=GAP, status=lambda number: 200, ending=(DONE,), piece=" a"):
        self.first, self.gap, self.status, self.ending, self.piece = first, gap, status, ending, piece
        self.times = []  # of each request: its arrival, and then each token
        self.bodies, self.headers, self.running, self.most_running = [], [], 0, 0

    async def answer(self, reader, writer):
        with closing(writer), suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.reply(reader, writer)

    async def reply(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        fields = {name.lower(): value for name, value in fields.items()}
        body = json.loads(await reader.readexactly(int(fields["content-length"])))
        status = self.status(len(self.bodies))
        self.bodies.append(body)
        self.headers.append(fields)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        writer.write(f"HTTP/1.1 {status} X\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        if status == 200:
            await self.stream(writer, body["max_tokens"])
        self.running -= 1
        writer.write(b"0\r\n\r\n")

    async def stream(self, writer, num_tokens):
        def send(data):
            text = event(data if data == DONE else json.dumps(data))
            half = len(text) // 2  # a chunk is not an event
            for part in (text[:half], text[half:]):
                writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")

        times = [now()]
        self.times.append(times)
        for number in range(num_tokens):
            await asyncio.sleep(self.gap if number else self.first)
            times.append(now())
            send({"choices": [{"text": self.piece, "finish_reason": None}]})
        send({"choices": [{"text": "", "finish_reason": "length"}]})
        send({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": num_tokens}})
        for last in self.ending:
            send(last)
        await writer.drain()


async def _served(fake, use):
    server = await asyncio.start_server(fake.answer, "127.0.0.1", 0)
    async with server:
        found = await use(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
    return found


def run(fake, *, prompts=8, slo=None, output_len=4, **load):
    async def use(url):
        given = Load(
            url=url,
            model="m",
            prompts=[f"prompt {i}" for i in range(prompts)],
            output_len=output_len,
            **load,
        )
        return await measure(given)

    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=SimulatedTime) as runner:
        for module in (bench, streamed):
            patch.setattr(module, "time", SimpleNamespace(perf_counter=now))
        answers, seconds = runner.run(_served(fake, use))
    return answers, Report.of(answers, seconds, slo)


@contextmanager
def in_a_thread(fake):
    """Yield the address of a fake server that runs while this thread calls the command."""
    ready, events = threading.Event(), asyncio.new_event_loop()
    found = []

    async def start():
        found.append(await asyncio.start_server(fake.answer, "127.0.0.1", 0))
        ready.set()

    thread = threading.Thread(target=lambda: (events.create_task(start()), events.run_forever()))
    thread.start()
    assert ready.wait(10)
    yield f"http://127.0.0.1:{found[0].sockets[0].getsockname()[1]}"
    events.call_soon_threadsafe(found[0].close)
    events.call_soon_threadsafe(events.stop)
    thread.join(10)
    events.close()


def test_known_delays_are_found():
    fake = Fake()
    answers, report = run(fake, concurrency=2)
    assert report.num_completed == 8 and not report.errors
    assert report.num_output_tokens == 8 * 4 and report.num_prompt_tokens == 8 * 5
    for found, delay in (
        (report.ttft, FIRST),
        (report.itl, GAP),
        (report.tpot, GAP),
        (report.latency, FIRST + 3 * GAP),
    ):
        assert [found.p50, found.p99] == pytest.approx([1e3 * delay] * 2, rel=0.01)
    assert report.seconds == pytest.approx(4 * (FIRST + 3 * GAP), rel=0.01)
    assert report.requests_per_second == pytest.approx(8 / report.seconds)
    assert report.output_tokens_per_second == pytest.approx(32 / report.seconds)
    assert all(len(answer.token_times) == 4 for answer in answers)


def test_the_requests_are_greedy_streams_of_the_wanted_length():
    fake = Fake(first=0, gap=0)
    run(fake, prompts=1, output_len=3, concurrency=1, api_key="secret")
    assert fake.bodies[-1] == {
        "model": "m",
        "prompt": "prompt 0",
        "max_tokens": 3,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert fake.headers[-1]["authorization"] == "Bearer secret"


def test_a_closed_loop_has_as_many_requests_at_once_as_clients():
    fake = Fake(gap=0.001)
    run(fake, prompts=12, concurrency=3)
    assert fake.most_running == 3


def test_an_open_loop_does_not_wait_for_answers():
    fake = Fake(first=0.3, gap=0)
    _, report = run(fake, prompts=16, rate=math.inf)
    assert fake.most_running == 16 and report.seconds == pytest.approx(0.3, rel=0.01)


def test_latency_counts_from_the_planned_arrival():
    """A server that blocks the client's own event loop delays later requests; their time of waiting counts."""

    class Blocking(Fake):
        async def stream(self, writer, num_tokens):
            asyncio.get_running_loop().selector.now += 0.1  # nothing else can run
            await super().stream(writer, num_tokens)

    answers, _ = run(Blocking(first=0, gap=0), prompts=4, rate=20.0)
    planned = [answer.sent - answers[0].sent for answer in answers]
    assert planned == pytest.approx(list(arrivals(20.0, 4)))
    assert max(answer.ttft for answer in answers) >= 0.15  # with 0.1 s for each of those before it


def test_poisson_arrivals():
    times = list(arrivals(50.0, 4000, seed=1))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert times[0] == 0 and statistics.fmean(gaps) == pytest.approx(1 / 50, rel=0.05)
    # An exponential distribution has a standard deviation equal to its mean, and exceeds it with probability 1/e.
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.1)
    assert sum(gap > 1 / 50 for gap in gaps) / len(gaps) == pytest.approx(1 / math.e, abs=0.03)
    assert times == list(arrivals(50.0, 4000, seed=1)) != list(arrivals(50.0, 4000, seed=2))


def test_goodput_counts_the_requests_within_the_objective():
    answers = [
        Answer(0.0, [first, first + gap, first + 2 * gap], 2.0, 5, 3)
        for first, gap in ((0.1, 0.05), (0.9, 0.05), (0.1, 0.3))
    ]
    answers.append(Answer(0.0, error="timeout"))
    assert Report.of(answers, 2.0, Slo(ttft=0.5, tpot=0.1)).goodput == 0.5
    assert Report.of(answers, 2.0, Slo(ttft=0.5)).goodput == 1.0
    assert Report.of(answers, 2.0).goodput is None


def test_percentiles_are_values_that_occurred():
    values = list(range(100, 0, -1))
    assert [percentile(values, p) for p in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert percentile([7.0], 99) == 7.0


@pytest.mark.parametrize(
    ("fake", "error"),
    [
        (Fake(0, 0, status=lambda n: 429 if n % 2 == 0 and n else 200), "HTTP 429"),
        (Fake(0, 0, ending=()), "incomplete stream"),
        (Fake(0, 0, piece=""), "no text"),
        (Fake(0, 0, ending=({"error": {"message": "x"}},)), "error in the stream"),
    ],
)
def test_failures_are_counted_and_not_measured(fake, error, monkeypatch):
    if error != "HTTP 429":

        async def none(load):
            """Skip the first request, which would fail."""

        monkeypatch.setattr("minillm.serving.bench._warm_up", none)
    _, report = run(fake, prompts=4, concurrency=1)
    expected = 2 if error == "HTTP 429" else 4
    assert report.errors == {error: expected}
    assert report.num_completed == 4 - expected == report.num_output_tokens / 4
    if not report.num_completed:
        assert report.ttft is None and "failed" in report.table()


def test_a_request_has_a_time_limit():
    fake = Fake(first=0, gap=0)
    slow = Fake(first=1, gap=0)

    async def answer(reader, writer):
        await (slow if fake.bodies else fake).answer(reader, writer)

    both = type("Both", (), {"answer": staticmethod(answer)})()
    _, report = run(both, prompts=2, concurrency=2, timeout=0.2)
    assert report.errors == {"timeout": 2} and report.seconds == pytest.approx(0.2, rel=0.01)


def test_a_server_that_is_not_there_is_named():
    load = Load(url="http://127.0.0.1:9", model="m", prompts=["a"], concurrency=1)
    with pytest.raises(BenchError, match=r"127\.0\.0\.1:9.*'m'.*ConnectionRefusedError"):
        asyncio.run(measure(load))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "not both"),
        ({"rate": 1.0, "concurrency": 1}, "not both"),
        ({"rate": 0.0}, "rate=0.0"),
        ({"rate": math.nan}, "rate=nan"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"concurrency": 1, "prompts": []}, "no prompts"),
        ({"concurrency": 1, "output_len": 0}, "output_len=0"),
    ],
)
def test_refusals(wrong, message):
    with pytest.raises(ValueError, match=message):
        Load(**{"url": "http://x", "model": "m", "prompts": ["a"], **wrong})


def test_random_prompts_share_no_beginning():
    prompts = random_prompts(50, 32)
    assert len({prompt[0] for prompt in prompts}) > 25 and all(len(prompt) == 32 for prompt in prompts)
    assert prompts == random_prompts(50, 32) != random_prompts(50, 32, seed=1)


def test_the_command(tmp_path, capsys):
    out, picture, prompts = tmp_path / "r.json", tmp_path / "r.png", tmp_path / "prompts.txt"
    prompts.write_text("Once upon a time\nThe fox\n", encoding="utf-8")
    fake = Fake(first=0.001, gap=0.001)
    with in_a_thread(fake) as url:
        arguments = ["bench", "--url", url, "--model", "m", "--output-len", "2", "--slo-ttft", "5000"]
        common = [*arguments, "--requests", "5", "--json", str(out), "--plot", str(picture)]
        assert main([*common, "--rate", "1000", "--prompts", str(prompts)]) == 0
        shown = capsys.readouterr().out
        assert main([*arguments, "--concurrency", "2", "--input-len", "7", "--requests", "3"]) == 0
    found = json.loads(out.read_text())
    assert found["num_completed"] == 5 and found["load"]["rate"] == 1000 and found["goodput"] > 0
    assert "5 of 5 requests" in shown and "goodput" in shown and "TTFT" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [body["prompt"] for body in fake.bodies[1:6]] == [
        ["Once upon a time", "The fox"][i % 2] for i in range(5)
    ]
    assert all(len(body["prompt"]) == 7 for body in fake.bodies[-3:])


def test_mistakes_in_the_command_are_one_line(capsys):
    assert main(["bench", "--url", "http://127.0.0.1:9", "--model", "m"]) == 2
    assert "--rate (open loop) or --concurrency" in capsys.readouterr().err
    assert main(["bench", "--url", "ftp://x", "--model", "m", "--rate", "1"]) == 2
    assert "ftp://x" in capsys.readouterr().err
    assert main(["bench", "--url", "http://127.0.0.1:9", "--model", "m", "--rate", "1"]) == 2
    assert "failed (ConnectionRefusedError)" in capsys.readouterr().err
