"""What does the server cost, and what does it survive? Overhead, overload, disconnects, malformed bodies, slow readers.

    python benchmarks/serving.py --json benchmarks/results/serving-cpu.json
    python benchmarks/serving.py --only overload,disconnects

The server runs in a process of its own, except for the overhead: there the same engine generates the same tokens for
callers in its process and for HTTP clients in another one, alternately. The CPU time of the engine's thread does not
depend on other programs. The wall time does. tests/serving/load.py has the loads.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from _rows import report  # noqa: E402

from minillm import LLM, SamplingParams  # noqa: E402
from minillm.engine.request import Delta  # noqa: E402
from minillm.measure.timing import machine_record  # noqa: E402
from minillm.serving.bench import Load, closed_loop, random_prompts  # noqa: E402
from minillm.serving.server import Server  # noqa: E402
from tests.serving import load  # noqa: E402

CLIENTS, INPUT_LEN, OUTPUT_LEN = 32, 64, 32
ROUNDS = 15
NUM_WAITING = 64  # the queue limit under overload
NUM_SEQS = 32
SHORT = 8  # output tokens of a request of the overload
Row = dict[str, Any]


def row(name: str, value: float, unit: str, **more: Any) -> Row:
    return {"name": name, "value": value, "unit": unit, **more}


class Clients:
    """A process that sends requests, so that the clients' work is not the server's."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, __file__, "--clients-of", url]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, count: int, seed: int) -> list[float]:
        """Return the seconds of `count` requests at once, and the median TTFT in seconds."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{count} {seed}\n")
        self.process.stdin.flush()
        return list(map(float, self.process.stdout.readline().split()))

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


def clients_of(url: str) -> None:
    """Run the process of `Clients`."""
    for line in sys.stdin:
        count, seed = map(int, line.split())
        prompts = random_prompts(count, INPUT_LEN, seed)
        given = Load(
            url=url, model="tinytales", prompts=prompts, output_len=OUTPUT_LEN, concurrency=count, timeout=120
        )
        began = time.perf_counter()
        answers = asyncio.run(closed_loop(given))
        assert all(answer.num_output_tokens == OUTPUT_LEN for answer in answers), [a.error for a in answers]
        print(time.perf_counter() - began, statistics.median(a.ttft for a in answers), flush=True)


class Bare:
    """The engine without a server: callers in the same process."""

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.params = SamplingParams(temperature=0, max_tokens=OUTPUT_LEN, ignore_eos=True)

    def run(self, count: int, seed: int) -> list[float]:
        """Return the seconds of `count` requests at once, and those until the first token."""
        left, done, first = count, threading.Event(), list[float]()

        def listener(deltas: list[Delta]) -> None:
            nonlocal left
            if not first:
                first.append(time.perf_counter())
            left -= sum(delta.finish_reason is not None for delta in deltas)
            if not left:
                done.set()

        prompts = random_prompts(count, INPUT_LEN, seed)
        began = time.perf_counter()
        self.llm.submit(prompts, self.params, listener=listener)
        assert done.wait(120)
        return [time.perf_counter() - began, first[0] - began]


def engine_seconds() -> float:
    """Return the CPU time of the engine's thread."""
    [thread] = [one for one in threading.enumerate() if one.name == "minillm-engine"]
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def overhead() -> list[Row]:
    """Compare the engine alone with the engine behind the server, in alternate rounds."""
    measured: dict[str, dict[str, list[float]]] = {
        side: {"engine": [], "process": [], "wall": [], "ttft": []} for side in ("bare", "served")
    }
    with LLM("tinytales", max_model_len=512) as llm, Server(llm) as server:
        clients = Clients(server.url)
        sides = {"bare": Bare(llm).run, "served": clients.run}
        for number in range(ROUNDS + 1):
            for side, run in sides.items():
                seed = 4 * number + (side == "served")
                engine, process = engine_seconds(), time.process_time()
                wall, _ = run(CLIENTS, seed)
                found = measured[side]
                values = (engine_seconds() - engine, time.process_time() - process, wall, run(1, seed + 2)[1])
                for name, value in zip(("engine", "process", "wall", "ttft"), values, strict=True):
                    if number:  # the first round pays for what is made once
                        found[name].append(value)
        clients.close()

    def ratios(name: str) -> list[float]:
        pairs = zip(measured["served"][name], measured["bare"][name], strict=True)
        return [served / bare for served, bare in pairs]

    later = [1e3 * (a - b) for a, b in zip(measured["served"]["ttft"], measured["bare"]["ttft"], strict=True)]
    what = f"{CLIENTS} clients, served / bare"
    return [
        spread(f"{what}: CPU time of the engine's thread", ratios("engine"), "x", ceiling=1.08),
        spread(f"{what}: CPU time of the process", ratios("process"), "x"),
        spread(f"{what}: wall time", ratios("wall"), "x"),
        spread("idle server: TTFT over the bare engine's", later, "ms", ceiling=8),
    ]


def spread(name: str, values: list[float], unit: str, **limits: float) -> Row:
    return row(
        name, statistics.median(values), unit, low=min(values), high=max(values), rounds=len(values), **limits
    )


def overload(folder: Path, count: int) -> list[Row]:
    """Send `count` requests at twice the rate that the server can serve."""
    arguments = (
        "--max-num-waiting",
        str(NUM_WAITING),
        "--max-num-seqs",
        str(NUM_SEQS),
        "--max-model-len",
        "256",
    )
    with load.serving(folder, *arguments) as server:
        _, alone = load.run_load(server.url, "tinytales", 400, concurrency=2 * NUM_SEQS, output_len=SHORT)
        capacity, before = alone.requests_per_second, server.memory()
        memory, stop = [before], threading.Event()

        def watch() -> None:
            while not stop.wait(0.5):
                memory.append(server.memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        answers, report = load.run_load(
            server.url, "tinytales", count, rate=2 * capacity, output_len=SHORT, seed=1, timeout=300
        )
        stop.set()
        watcher.join()
        load.wait_until(lambda: load.idle(server.url))
        refused = report.errors.get("HTTP 429", 0)
        assert report.latency is not None
        halfway = memory[len(memory) // 2]
        sent = max(answer.sent for answer in answers) - min(answer.sent for answer in answers)
        return [
            row("overload: capacity", capacity, "requests/s"),
            row("overload: served", report.requests_per_second, "requests/s"),
            row("overload: arrivals", count / sent, "requests/s"),
            row("overload: requests", count, "requests"),
            row("overload: answered in full", report.num_completed, "requests"),
            row("overload: refused with 429", refused, "requests"),
            row("overload: lost", count - report.num_completed - refused, "requests", ceiling=0),
            row("overload: latency of admitted ones, p50", report.latency.p50, "ms"),
            row(
                "overload: latency of admitted ones, p99",
                report.latency.p99,
                "ms",
                # An admitted request waits for a full queue and a full batch. Other work of the machine adds to that.
                ceiling=1e3 * 3 * (NUM_WAITING + NUM_SEQS) / report.requests_per_second,
            ),
            row("overload: memory", memory[-1] / 1e6, "MB", ceiling=2000),
            row("overload: memory at the end / halfway", memory[-1] / halfway, "x", ceiling=1.05),
            *no_trace(server, "overload"),
        ]


def no_trace(server: load.Process, name: str) -> list[Row]:
    log = server.log.read_text()
    return [
        row(f"{name}: tracebacks in the log", log.count("Traceback") + log.count("Error\n"), "", ceiling=0)
    ]


def disconnects(folder: Path, count: int) -> list[Row]:
    """Close `count` connections at random moments."""
    with load.serving(folder, "--max-model-len", "512") as server:
        begun = load.disconnects(server.url, "tinytales", count, at_once=16, max_tokens=200)
        began = time.monotonic()
        load.wait_until(lambda: load.idle(server.url))
        seconds = time.monotonic() - began
        left = load.gauges(server.url)
        return [
            row("disconnects", count, "connections"),
            row("disconnects: after the first byte", begun, "connections"),
            row("disconnects: share of blocks held after", left["usage"], "", ceiling=0),
            row("disconnects: requests running after", left["running"] + left["waiting"], "", ceiling=0),
            row("disconnects: time until all blocks are free", 1e3 * seconds, "ms"),
            *no_trace(server, "disconnects"),
        ]


def bodies(folder: Path, count: int) -> list[Row]:
    """Send malformed bodies."""
    with load.serving(folder, "--max-model-len", "512") as server:
        statuses, failed = load.fuzz(server.url, "tinytales", count)
        for one in failed[:5]:
            print(one, file=sys.stderr)
        load.wait_until(lambda: load.idle(server.url))
        return [
            row("malformed bodies", count, "requests"),
            *(
                row(f"malformed bodies: status {status}", n, "answers")
                for status, n in sorted(statuses.items())
            ),
            row("malformed bodies: 5xx, or not in OpenAI's form", len(failed), "answers", ceiling=0),
            *no_trace(server, "malformed bodies"),
        ]


def slow_readers(folder: Path) -> list[Row]:
    """Compare the latency of other requests while 8 clients do not read."""
    with load.serving(folder, "--max-num-seqs", "32") as server:
        _, alone = load.run_load(server.url, "tinytales", 40, concurrency=2, output_len=16)
        socks = load.slow_readers(server.url, "tinytales", 8, max_tokens=500)
        load.wait_until(lambda: load.idle(server.url), 120)
        memory = server.memory()
        _, report = load.run_load(server.url, "tinytales", 40, concurrency=2, output_len=16, seed=1)
        whole = sum(load.read_all(sock)[-1] == load.DONE for sock in socks)
        for sock in socks:
            sock.close()
        assert alone.latency is not None and report.latency is not None
        return [
            row(
                "slow readers: latency of others, with / without", report.latency.p50 / alone.latency.p50, "x"
            ),
            row("slow readers: their own streams that came whole", whole, "streams", floor=8),
            row("slow readers: memory", memory / 1e6, "MB", ceiling=2000),
        ]


PARTS = {
    "overhead": lambda folder, scale: overhead(),
    "overload": lambda folder, scale: overload(folder, 10_000 // scale),
    "disconnects": lambda folder, scale: disconnects(folder, 1_000 // scale),
    "bodies": lambda folder, scale: bodies(folder, 500 // scale),
    "slow-readers": lambda folder, scale: slow_readers(folder),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--scale", type=int, default=1, help="divide the numbers of requests by this")
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--clients-of", metavar="URL", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.clients_of:
        clients_of(args.clients_of)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only.split(","):
            found = PARTS[name](Path(folder), args.scale)
            report(found, argparse.Namespace(json=None))
            rows += found
    if args.json:
        record = {"machine": machine_record(), "rows": rows}
        args.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
