"""The live engine and connection of exercise 13.5, and the small HTTP client of chapter 13."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from minillm import LLM, SamplingParams
from minillm.course.disconnect import Client, Engine, LiveEngine, serve
from minillm.course.http_client import complete, complete_all, connect, read_and_leave, stream_chunks
from minillm.serving.server import Server
from minillm.serving.sse import EventReader

BODY = {"model": "tinytales", "prompt": "Once", "max_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("tinytales", dtype="float32", max_model_len=512, max_num_seqs=1) as llm:
        yield llm


async def send_all(engine: Engine, client: Client, prompt: str) -> None:
    async for piece in engine.submit(prompt):
        await client.send(piece)


async def until_gone(engine: Engine, client: Client, prompt: str) -> None:
    request = engine.submit(prompt)
    await client.send("hello")
    await client.disconnected()
    request.abort()
    try:
        await client.send("too late")
    except ConnectionError as error:
        refusals.append(error)


refusals: list[ConnectionError] = []


def test_a_handler_sends_the_engines_text(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=12)
    (output,) = llm.generate("Once", params)
    with (
        Server(serve(send_all, LiveEngine(llm, params))) as server,
        closing(connect(server.url)) as connection,
    ):
        connection.request("GET", "/Once")
        assert connection.getresponse().read().decode() == output.outputs[0].text


def test_a_handler_learns_that_its_client_has_left(llm: LLM) -> None:
    engine = LiveEngine(llm, SamplingParams(max_tokens=400, ignore_eos=True))
    with Server(serve(until_gone, engine)) as server:
        assert read_and_leave(server.url, "/Once", 5) == b"hello"
        deadline = time.monotonic() + 20
        while not (engine.requests and engine.requests[0].finished) and time.monotonic() < deadline:
            time.sleep(0.01)
    (request,) = engine.requests
    assert request.aborts == 1 and request._output.outputs[0].finish_reason == "abort"
    assert len(refusals) == 1
    assert llm.engine.memory.num_free == llm.engine.memory.num_blocks


def test_the_error_of_a_request_comes_out(llm: LLM) -> None:
    async def read() -> None:
        params = SamplingParams(max_tokens=4, logits_processors=[lambda ids, logits: 1 / 0])
        async for _ in LiveEngine(llm, params).submit("Once"):
            pass

    with pytest.raises(ZeroDivisionError):
        asyncio.run(read())


def test_whole_replies_and_chunks(llm: LLM) -> None:
    with Server(llm) as server:
        status, headers, reply = complete(server.url, **BODY)
        assert status == 200 and headers["content-type"] == "application/json"
        replies = complete_all(server.url, [BODY, {**BODY, "max_tokens": 0}], num_clients=2)
        assert replies[0][2]["choices"] == reply["choices"] and replies[1][0] == 400
        chunks = list(stream_chunks(server.url, 5, **BODY))
    assert {len(chunk) for chunk in chunks[:-1]} == {5}
    reader = EventReader()
    assert [data for chunk in chunks for data in reader.feed(chunk)][-1] == "[DONE]"
