"""A full replica does not refuse a request that another replica of the model has room for."""

import pytest

from minillm.serving.registry import OverloadedError, Registry, Replica
from minillm.serving.server import Server
from tests.engine import tiny
from tests.serving.client import request


@pytest.fixture(scope="module", params=["prefix", "load"])
def registry(request):
    llms = [tiny.llm(max_num_waiting=2) for _ in range(2)]
    yield Registry({"tiny": llms}, request.param)
    for llm in llms:
        llm.close()


def waiting(monkeypatch, *numbers):
    monkeypatch.setattr(Replica, "num_waiting", property(lambda self: numbers[self.index]))


@pytest.mark.parametrize(("numbers", "expected"), [((2, 0), 1), ((0, 2), 0), ((5, 1), 1)])
def test_a_full_replica_is_not_chosen(numbers, expected, registry, monkeypatch):
    waiting(monkeypatch, *numbers)
    registry.check_admission("tiny")
    assert registry.choose("tiny", [7, 8, 9]).index == expected


def test_a_request_is_refused_if_all_are_full(registry, monkeypatch):
    waiting(monkeypatch, 2, 3)
    with pytest.raises(OverloadedError, match="2 requests are waiting"):
        registry.check_admission("tiny")
    with pytest.raises(OverloadedError):
        registry.choose("tiny", [7]).check_admission()


def test_a_refusal_costs_no_tokenisation(registry, monkeypatch):
    """Under twice the load that a server can serve, it refuses as often as it serves."""
    waiting(monkeypatch, 2, 2)
    encoded = []
    monkeypatch.setattr("minillm.llm.LLM.encode", lambda *arguments: encoded.append(arguments))
    with Server(registry) as server:
        status, headers, _ = request(server, "POST", "/v1/completions", {"model": "tiny", "prompt": "a"})
    assert status == 429 and int(headers["Retry-After"]) >= 1 and not encoded
