"""Chapter 13's tools: the small server answers, a stop string has earlier beginnings, metrics are read and summed."""

import asyncio
import http.server
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from minillm.course import serving

METRICS = """# HELP vllm:num_requests_running Requests that the engine computes.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="a",engine="0"} 2.0
vllm:num_requests_running{model_name="a",engine="1"} 3.0
vllm:num_requests_running{model_name="b",engine="0"} 7.0
vllm:time_to_first_token_seconds_bucket{model_name="a",engine="0",le="0.1"} 4.0
vllm:time_to_first_token_seconds_sum{model_name="a",engine="0"} 0.5
python_gc_total 3.0
"""


class Canned(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._send(200, METRICS.encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(429 if body["prompt"] == "busy" else 200, json.dumps({"got": body}).encode())

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "3")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Canned) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_metrics_of_one_model_are_summed_over_its_engines(url: str) -> None:
    assert serving.metrics(url, "a") == {"num_requests_running": 5.0, "time_to_first_token_seconds_sum": 0.5}
    assert serving.metrics(url, "b") == {"num_requests_running": 7.0}


def test_an_answer_and_a_refusal(url: str) -> None:
    assert serving.post(url, prompt="hi") == serving.Reply(200, None, {"got": {"prompt": "hi"}})
    busy = serving.post(url, prompt="busy")
    assert (busy.status, busy.retry_after) == (429, "3")


def test_the_small_server_reads_what_the_client_sends() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(await serving.body_of(reader)).encode())
        writer.close()

    with (
        serving.SmallServer(echo) as small,
        socket.create_connection(serving.address(small.url)) as connection,
    ):
        connection.sendall(serving.post_bytes("/", {"prompt": "é"}))
        assert json.loads(b"".join(iter(lambda: connection.recv(5), b""))) == {"prompt": "é"}
    with pytest.raises(OSError):
        socket.create_connection(serving.address(small.url), timeout=1)


def test_a_stop_string_has_beginnings_before_it() -> None:
    text = "the cat sat. the cat ran. a dog sat on a mat and saw how the cat sang. It was a very good song, all said."
    stop = serving.stop_string(text)
    assert len(stop) == 12 and text.index(stop) > len(text) / 2 - 1
    assert text[: text.index(stop)].count(stop[:5]) == 2, stop
    assert serving.stop_string("short") in "short"


def test_polling_ends_when_it_is_cancelled() -> None:
    async def run() -> list[tuple[float, dict[str, float]]]:
        samples: list[tuple[float, dict[str, float]]] = []
        task = asyncio.create_task(serving.poll(lambda: {"x": 1.0}, 0.001, samples))
        while len(samples) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        await task
        return samples

    samples = asyncio.run(run())
    assert [sample for _, sample in samples] == [{"x": 1.0}] * len(samples)
    assert samples[0][0] >= 0 and [at for at, _ in samples] == sorted(at for at, _ in samples)
