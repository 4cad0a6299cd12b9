"""Requests that cannot be served: the right status, OpenAI's shape, and never a 500."""

import json
import socket
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minillm.serving.registry import Registry
from minillm.serving.server import Server
from minillm.serving.settings import Settings
from tests.engine import tiny
from tests.serving.client import error, get, post, raw, request

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (COMPLETIONS, {}, 400, "prompt"),
        (COMPLETIONS, {"prompt": ""}, 400, None),
        (COMPLETIONS, {"prompt": []}, 400, "prompt"),
        (COMPLETIONS, {"prompt": [[]]}, 400, None),
        (COMPLETIONS, {"prompt": ["a", [1]]}, 400, "prompt"),
        (COMPLETIONS, {"prompt": [10**30]}, 400, None),
        (COMPLETIONS, {"prompt": [-1]}, 400, None),
        (COMPLETIONS, {"prompt": "a \ud800"}, 400, None),
        (COMPLETIONS, {"prompt": None}, 400, "prompt"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": -1}, 400, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": "5"}, 400, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": True}, 400, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 0}, 400, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 10**9}, 400, "max_tokens"),  # cannot fit
        (COMPLETIONS, {"prompt": [5] * 500}, 400, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "temperature": float("nan")}, 400, "temperature"),
        (COMPLETIONS, {"prompt": "a", "temperature": float("inf")}, 400, "temperature"),
        (COMPLETIONS, {"prompt": "a", "temperature": 10**400}, 400, "temperature"),
        (COMPLETIONS, {"prompt": "a", "top_p": 0}, 400, "top_p"),
        (COMPLETIONS, {"prompt": "a", "n": 0}, 400, "n"),
        (COMPLETIONS, {"prompt": "a", "n": 3, "temperature": 0}, 400, "n"),
        (COMPLETIONS, {"prompt": ["a"] * 100, "n": 100}, 400, "n"),
        (COMPLETIONS, {"prompt": "a", "logprobs": 21}, 400, "logprobs"),
        (COMPLETIONS, {"prompt": "a", "stop": [""]}, 400, "stop"),
        (COMPLETIONS, {"prompt": "a", "stop": {"a": 1}}, 400, "stop"),
        (COMPLETIONS, {"prompt": "a", "seed": 10**40}, 400, "seed"),
        (COMPLETIONS, {"prompt": "a", "priority": 10**40}, 400, "priority"),
        (COMPLETIONS, {"prompt": "a", "priority": 1}, 400, "priority"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"x": 1}}, 400, "logit_bias"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"9999999": 1}}, 400, "logit_bias"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"1": 101}}, 400, "logit_bias"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"\ud800": "x"}}, 400, "logit_bias"),
        (COMPLETIONS, {"prompt": "a", "stop_token_ids": [10**30]}, 400, "stop_token_ids"),
        (COMPLETIONS, {"prompt": "a", "best_of": 2}, 400, "best_of"),
        (COMPLETIONS, {"prompt": "a", "suffix": "b"}, 400, "suffix"),
        (COMPLETIONS, {"prompt": "a", "stream": True, "prompt_logprobs": 1}, 400, "prompt_logprobs"),
        (COMPLETIONS, {"prompt": "a", "stream_options": 3}, 400, "stream_options"),
        (COMPLETIONS, {"prompt": "a", "response_format": {"type": "json_object"}}, 400, "response_format"),
        (COMPLETIONS, {"prompt": "a", "model": "gpt-4"}, 404, "model"),
        (COMPLETIONS, {"prompt": "a", "model": "\udfff"}, 404, "model"),
        (COMPLETIONS, {"prompt": "a", "model": 3}, 400, "model"),
        (CHAT, {}, 400, "messages"),
        (CHAT, {"messages": []}, 400, "messages"),
        (CHAT, {"messages": [{"content": "a"}]}, 400, None),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, 400, None),
        (CHAT, {"messages": ["a"]}, 400, "messages"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400,
            None,
        ),
        (CHAT, {"messages": MESSAGES, "tools": [{"type": "function"}]}, 400, "tools"),
        (CHAT, {"messages": MESSAGES, "functions": [{"name": "f"}]}, 400, "functions"),
        (CHAT, {"messages": MESSAGES, "tool_choice": "required"}, 400, "tool_choice"),
        (CHAT, {"messages": MESSAGES, "response_format": {"type": "json_object"}}, 400, "response_format"),
        (CHAT, {"messages": MESSAGES, "modalities": ["text", "audio"]}, 400, "modalities"),
        (CHAT, {"messages": MESSAGES, "top_logprobs": 3}, 400, "top_logprobs"),
        (CHAT, {"messages": MESSAGES, "logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
        (CHAT, {"messages": MESSAGES, "max_tokens": 0}, 400, "max_tokens"),
        ("/v1/embeddings", {"input": "a"}, 400, None),
        ("/v1/nothing", {}, 404, None),
        ("/v1/models", {}, 405, None),
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "\ud800"}, 400, None),
        ("/detokenize", {"tokens": [10**30]}, 400, None),
        ("/detokenize", {"tokens": [-5]}, 400, None),
    ],
)
def test_refused(server, path, body, status, param):
    found, content = error(server, path, body)
    assert found == status, content
    if param is not None:
        assert content["param"] == param and param in content["message"]


@pytest.mark.parametrize(
    "neutral",
    [
        {"best_of": 1},
        {"suffix": None},
        {"tools": []},
        {"response_format": {"type": "text"}},
        {"modalities": ["text"]},
    ],
)
def test_values_that_ask_for_nothing_are_accepted(server, neutral):
    assert post(server, COMPLETIONS, {"prompt": "a", "max_tokens": 1} | neutral)[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b"null",
        b'"prompt"',
        b"3",
        b"\xff\xfe\x00",
        b'{"prompt": "\xff"}',
        b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"prompt": "a", "x": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
        b'{"prompt": "a", "max_tokens": ' + b"9" * 10_000 + b"}",
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": -Infinity}',
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "a\\ud800"}',
        b'{"prompt": "a", "stop": ["\\udc00"], "max_tokens": 1, "bad_words": ["\\ud800"]}',
    ],
)
def test_broken_bodies(server, body):
    status, _, text = request(server, "POST", COMPLETIONS, body)
    assert status == 400, text
    assert json.loads(text)["error"]["message"] and len(text) < 2000


def test_the_body_must_be_json_by_its_header(server):
    status, _, _ = request(server, "POST", COMPLETIONS, b'{"prompt": "a"}', {"Content-Type": "text/plain"})
    assert status == 400


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["a", [1], "\ud800"]),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "model prompt messages n stream stream_options max_tokens temperature top_p presence_penalty seed stop logit_bias "
    "top_k min_p min_tokens stop_token_ids ignore_eos logprobs top_logprobs echo prompt_logprobs bad_words suffix "
    "allowed_token_ids priority chat_template_kwargs add_generation_prompt tools response_format"
).split()


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([COMPLETIONS, CHAT, "/tokenize", "/detokenize"]),
    st.dictionaries(st.sampled_from(FIELDS), JSON),
)
def test_no_body_breaks_the_server(server, path, body):
    good = {"prompt": "a"} if path == COMPLETIONS else {"messages": MESSAGES} if path == CHAT else {}
    status, _, text = request(server, "POST", path, good | {"max_tokens": 1} | body)
    assert status < 500 and status != 422, text
    assert b"Traceback" not in text


def with_settings(**settings):
    return Server(Registry({"tiny": tiny.llm()}), settings=Settings(**settings))


def test_the_api_key():
    body = {"prompt": "a", "max_tokens": 1}
    with with_settings(api_key="sécret") as server:
        assert error(server, COMPLETIONS, body)[0] == 401
        for wrong in (
            "Bearer wrong",
            "sécret".encode(),
            b"Bearer \xff\xfe",
            "Basic x",
            b"Bearer s\xe9cret",
            "",
        ):
            assert post(server, COMPLETIONS, body, Authorization=wrong)[0] == 401
        right = "Bearer sécret".encode()
        assert post(server, COMPLETIONS, body, Authorization=right)[0] == 200
        assert post(server, COMPLETIONS, body, Authorization=right.replace(b"B", b"b"))[0] == 200
        assert get(server, "/v1/models")[0] == 401 and post(server, "/tokenize", body)[0] == 401
        assert [get(server, path)[0] for path in ("/health", "/metrics", "/version", "/docs")] == [200] * 4


def test_the_length_of_a_body_is_bounded_while_it_is_read():
    with with_settings(max_body_bytes=1000) as server:
        assert error(server, COMPLETIONS, {"prompt": "a" * 2000})[0] == 413
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=10) as sock:
            head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            sock.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(3):
                sock.sendall(b"1f4\r\n" + b" " * 500 + b"\r\n")  # the body has no end
            assert b" 413 " in sock.recv(1000)
        assert post(server, COMPLETIONS, {"prompt": "a", "max_tokens": 1})[0] == 200


def test_a_body_must_arrive_in_time():
    with with_settings(body_seconds=0.2) as server:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=10) as sock:
            head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            sock.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert b" 408 " in sock.recv(1000)


def test_a_long_prompt_is_not_tokenised():
    with with_settings(max_prompt_characters=100) as server:
        for path, body in ((COMPLETIONS, {"prompt": "a" * 101}), ("/tokenize", {"prompt": "a" * 101})):
            assert error(server, path, body)[0] == 413
        long = [{"role": "user", "content": [{"type": "text", "text": "a" * 101}]}]
        assert error(server, CHAT, {"messages": long})[0] == 413


def test_cors():
    with with_settings(cors=("https://page.example",), api_key="k") as server:
        asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
        status, headers, _ = request(server, "OPTIONS", COMPLETIONS, None, asked)
        assert status == 200 and headers["Access-Control-Allow-Origin"] == "https://page.example"
        status, headers, _ = request(server, "GET", "/health", None, {"Origin": "https://other.example"})
        assert "Access-Control-Allow-Origin" not in headers
        # A page that may use the server also learns why it was refused.
        status, headers, _ = request(server, "POST", COMPLETIONS, {}, {"Origin": "https://page.example"})
        assert status == 401 and "Access-Control-Allow-Origin" in headers


def test_logs_say_nothing_of_a_request(server, caplog, capfd, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("SEC" + "RET in a message")

    monkeypatch.setattr(type(server.service), "complete", broken)
    with caplog.at_level("DEBUG"):
        status, content = error(server, COMPLETIONS + "?SECRET=1", {"prompt": "SECRET"})
    assert status == 500 and "SECRET" not in content["message"]
    printed = caplog.text + "".join(capfd.readouterr())
    assert "RuntimeError" in caplog.text and "in broken" in caplog.text and "SECRET" not in printed


def test_requests_are_logged_if_asked(caplog):
    with with_settings(log_requests=True) as server, caplog.at_level("INFO"):
        post(server, COMPLETIONS, {"prompt": "a tale", "max_tokens": 1})
    assert "/v1/completions" in caplog.text and "a tale" in caplog.text and " 200" in caplog.text


def test_a_broken_connection_is_no_error(server, caplog):
    raw(server, COMPLETIONS, {"prompt": "a", "max_tokens": 50}).close()
    with socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port)) as sock:
        sock.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
        sock.recv(1000)
    assert post(server, COMPLETIONS, {"prompt": "a", "max_tokens": 1})[0] == 200
    assert "Traceback" not in caplog.text
