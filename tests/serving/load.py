"""Trouble for a busy server: each function makes one kind of it, and returns how the server answered.

test_load.py runs short versions, and benchmarks/serving.py the full ones. All loops end, and everything stays on
127.0.0.1.
"""

import asyncio
import http.client
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from minillm.serving.bench import Load, Report, measure, random_prompts
from minillm.serving.sse import DONE, EventReader

ROOT = Path(__file__).parents[2]
COMPLETIONS = "/v1/completions"


class Process:
    """A server in a process of its own: `url`, its memory, its log and its end."""

    def __init__(self, folder, *arguments, port=None, models=("tinytales",)):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"server-{self.port}.log"
        command = [
            sys.executable,
            "-m",
            "minillm.cli",
            "serve",
            *models,
            "--port",
            str(self.port),
            *arguments,
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with self.log.open("a") as stream:
            self.popen = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        wait_until(lambda: self.popen.poll() is not None or answers(self.url), 60)
        assert self.popen.poll() is None, self.log.read_text()

    def memory(self):
        """Return the process's memory in bytes."""
        text = Path(f"/proc/{self.popen.pid}/status").read_text()
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", text)[1])

    def end(self, number=signal.SIGTERM, seconds=60):
        """Send a signal, wait for the end, and return the exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(seconds)
        finally:
            if self.popen.poll() is None:
                self.popen.kill()
                self.popen.wait(10)


@contextmanager
def serving(folder, *arguments, **more):
    process = Process(folder, *arguments, **more)
    try:
        yield process
    finally:
        process.end()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        time.sleep(0.01)


def fetch(url, path, body=None, timeout=60):
    """Return the status, the headers and the bytes of an answer; `body` is bytes or JSON."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        connection.request(
            "GET" if body is None else "POST", path, data, {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def answers(url):
    try:
        return fetch(url, "/health", timeout=5)[0] == 200
    except OSError:
        return False


def gauges(url):
    """Return the sums of the server's gauges over its models: running, waiting, usage of the KV cache."""
    text = fetch(url, "/metrics")[2].decode()
    names = {
        "running": "num_requests_running",
        "waiting": "num_requests_waiting",
        "usage": "kv_cache_usage_perc",
    }
    return {
        key: sum(float(value) for value in re.findall(rf"^vllm:{name}{{.*}} (\S+)$", text, re.MULTILINE))
        for key, name in names.items()
    }


def idle(url):
    """Return whether no request runs or waits, and no block is held."""
    return gauges(url) == {"running": 0, "waiting": 0, "usage": 0}


def run_load(url, model, count, *, input_len=16, output_len=8, seed=0, timeout=120.0, **load):
    """Return the answers of a load of random prompts, and its report."""
    prompts = random_prompts(count, input_len, seed)
    given = Load(
        url=url, model=model, prompts=prompts, output_len=output_len, seed=seed, timeout=timeout, **load
    )
    found, seconds = asyncio.run(measure(given))
    return found, Report.of(found, seconds)


def send(url, body, receive_buffer=None):
    """Send a completion request over a socket of its own, and return the socket."""
    address = urlsplit(url)
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(60)
    sock.connect((address.hostname, address.port))
    data = json.dumps(body).encode()
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    sock.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode() + data)
    return sock


def read_all(sock):
    """Return the data of all events of a streamed answer."""
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    return EventReader().feed(answer.read())


def disconnects(url, model, count, *, at_once=16, longest=0.25, max_tokens=60, seed=0):
    """Send `count` requests, some streaming and some not, and close each connection at a random moment.

    Half of the connections are reset, and half are closed. Return how many had sent their first bytes by then.
    """
    draw = random.Random(seed)
    open_until, begun = [], 0
    for number in range(count):
        prompt = random_prompts(1, draw.randrange(1, 30), seed + number)[0]
        body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True}
        body |= {"stream": draw.random() < 0.5, "n": draw.choice((1, 1, 3))}
        open_until.append((time.monotonic() + longest * draw.random(), send(url, body), draw.random() < 0.5))
        while len(open_until) >= at_once or (open_until and number == count - 1):
            open_until.sort(key=lambda one: one[0])
            moment, sock, reset = open_until.pop(0)
            time.sleep(max(0, moment - time.monotonic()))
            begun += received(sock)
            if reset:  # the kernel sends RST instead of FIN
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
    return begun


def received(sock):
    sock.setblocking(False)
    try:
        return bool(sock.recv(1))
    except BlockingIOError:
        return False


WRONG_VALUES = (
    *(
        None,
        True,
        -1,
        0,
        1e308,
        -1e308,
        2**63,
        2**64,
        -(2**70),
        1.5,
        "",
        "x",
        "\ud800",
        "\x00" * 9,
        [],
        [[]],
        {},
    ),
    *(
        [None],
        [-1],
        [2**40],
        [1.5],
        ["a", 1],
        [["a"]],
        {"a": {}},
        {"1": "x"},
        {"-1": 1},
        {"9" * 30: 1},
        ["\udfff"],
    ),
)
FIELDS = """model prompt messages n stream stream_options max_tokens max_completion_tokens temperature top_p top_k min_p
presence_penalty frequency_penalty repetition_penalty seed stop logit_bias logprobs top_logprobs echo best_of suffix
user stop_token_ids min_tokens ignore_eos skip_special_tokens include_stop_str_in_output prompt_logprobs bad_words
allowed_token_ids priority add_special_tokens tools response_format chat_template_kwargs add_generation_prompt
continue_final_message tokens""".split()
ROUTES = ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/v1/embeddings")


def malformed(seed, model):
    """Return a route and a body that is probably wrong: wrong values, cut or nested JSON, NaN, bytes."""
    draw = random.Random(seed)
    route = draw.choice(ROUTES)
    content = draw.choice(("Hi", [{"type": "text", "text": "Hi"}], *WRONG_VALUES))
    body = {
        "model": model,
        "prompt": "Hi",
        "messages": [{"role": draw.choice(("user", "system", 7)), "content": content}],
        "max_tokens": 2,
        "tokens": [1, 2],
    }
    for name in draw.sample(FIELDS, draw.randrange(1, 4)):
        body[name] = draw.choice(WRONG_VALUES)
    data = json.dumps(body).encode()
    how = draw.randrange(12)
    if how == 0:
        data = data[: draw.randrange(len(data))]
    elif how == 1:
        data = data.replace(b"2", draw.choice((b"NaN", b"-Infinity", b"1e999", b"9" * 5000)))
    elif how == 2:
        depth = draw.choice((50, 5_000, 100_000))
        data = data[:-1] + b', "x": ' + b"[" * depth + b"]" * draw.choice((0, depth)) + b"}"
    elif how == 3:
        data = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 200)))
    elif how == 4:
        data = draw.choice(
            (b"", b"[]", b"null", b'"x"', b"0", b"\xff\xfe{}", b"{" * 1000, b"\xef\xbb\xbf" + data)
        )
    elif how == 5:
        data = data.replace(
            b"Hi", draw.choice((b"\\ud800", b"\xed\xa0\x80", b"\\u0000", b"\xc0", b"<|user|>"))
        )
    return route, data


def fuzz(url, model, count, seed=0):
    """Send `count` malformed bodies. Return how often each status came, and the bodies that the server failed on."""
    statuses, failed = {}, []
    for number in range(seed, seed + count):
        route, data = malformed(number, model)
        status, _, answer = fetch(url, route, data)
        statuses[status] = statuses.get(status, 0) + 1
        if status >= 500 or status == 422 or b"Traceback" in answer or not shaped(status, answer):
            failed.append((number, route, data[:300], status, answer[:300]))
    return statuses, failed


def shaped(status, answer):
    """Return whether an answer that is an error has OpenAI's form."""
    if status == 200:
        return True
    with suppress(ValueError):
        found = json.loads(answer)
        return set(found) == {"error"} and set(found["error"]) == {"message", "type", "param", "code"}
    return False


def slow_readers(url, model, count, max_tokens):
    """Open `count` streams with much output and read nothing. Return their sockets."""
    body = {"model": model, "prompt": "Once", "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0}
    body |= {"stream": True, "logprobs": 20}
    return [send(url, body, receive_buffer=2048) for _ in range(count)]


def streams(url, model, count, max_tokens):
    """Open `count` streams, wait for the first event of each, and return their sockets with what was read."""
    body = {"model": model, "prompt": "Once", "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
    socks = [send(url, body) for _ in range(count)]
    return [(sock, sock.recv(65536)) for sock in socks]


def rest_of(sock, begun):
    """Return whether a stream came to its `[DONE]`; False if the connection ended before."""
    found = begun
    with suppress(OSError):
        while piece := sock.recv(65536):
            found += piece
    sock.close()
    return f"data: {DONE}".encode() in found
