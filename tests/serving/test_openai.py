"""The server as OpenAI's own client sees it, and the bytes that other clients complain about."""

import asyncio
import json
import shutil
import subprocess

import openai
import pytest

from minillm import SamplingParams
from tests.engine import tiny
from tests.serving.client import chunks, events, get, post, wait_until

PROMPT = "the quick brown"
GREEDY = {"model": "tiny", "temperature": 0.0}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def expected(server):
    params = SamplingParams(temperature=0, max_tokens=12, logprobs=3, prompt_logprobs=3)
    [output] = tiny.llm().generate(PROMPT, params)
    return output


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_a_completion_is_the_engines_text(client, expected):
    reply = client.completions.create(prompt=PROMPT, max_tokens=12, **GREEDY)
    assert reply.choices[0].text == expected.outputs[0].text
    assert reply.choices[0].finish_reason == expected.outputs[0].finish_reason
    assert reply.id.startswith("cmpl-") and reply.object == "text_completion" and reply.model == "tiny"
    assert reply.usage.prompt_tokens == len(expected.prompt_token_ids)
    assert reply.usage.completion_tokens == len(expected.outputs[0].token_ids)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_the_four_kinds_of_prompt(client, expected):
    ids = expected.prompt_token_ids
    for prompt, count in ((PROMPT, 1), (ids, 1), ([PROMPT, PROMPT], 2), ([ids, ids, ids], 3)):
        reply = client.completions.create(prompt=prompt, max_tokens=12, **GREEDY)
        assert [choice.text for choice in reply.choices] == [expected.outputs[0].text] * count
        assert [choice.index for choice in reply.choices] == list(range(count))


def test_n_samples_of_several_prompts(client):
    reply = client.completions.create(model="tiny", prompt=["a", "b"], n=3, seed=7, max_tokens=5)
    assert [choice.index for choice in reply.choices] == list(range(6))
    assert len({choice.text for choice in reply.choices}) > 1
    stream = client.completions.create(
        model="tiny", prompt=["a", "b"], n=3, seed=7, max_tokens=5, stream=True
    )
    texts = [""] * 6
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in reply.choices]


def test_a_stream_says_what_the_whole_reply_says(client, expected):
    stream = client.completions.create(prompt=PROMPT, max_tokens=12, stream=True, **GREEDY)
    assert "".join(chunk.choices[0].text for chunk in stream) == expected.outputs[0].text


def test_a_chat_is_the_engines_chat(client):
    messages = [{"role": "user", "content": "once upon"}]
    [output] = tiny.llm().chat(messages, SamplingParams(temperature=0, max_tokens=9))
    reply = client.chat.completions.create(messages=messages, max_completion_tokens=9, **GREEDY)
    assert reply.choices[0].message.content == output.outputs[0].text
    assert reply.choices[0].message.role == "assistant" and reply.object == "chat.completion"
    parts = [{"role": "user", "content": [{"type": "text", "text": "once upon"}]}]
    again = client.chat.completions.create(messages=parts, max_tokens=9, **GREEDY)
    assert again.choices[0].message.content == output.outputs[0].text
    assert again.usage.prompt_tokens == len(output.prompt_token_ids)
    stream = client.chat.completions.create(messages=messages, max_tokens=9, stream=True, **GREEDY)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == output.outputs[0].text


def test_a_chat_without_a_limit_goes_to_the_end_of_the_context(client):
    reply = client.chat.completions.create(
        messages=[{"role": "user", "content": "a"}], extra_body={"ignore_eos": True}, **GREEDY
    )
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.total_tokens == tiny.CONTEXT


# Complaints about other servers.


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/v1/completions", {"prompt": PROMPT}, "text_completion"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}, "chat.completion.chunk"),
    ],
)
def test_every_chunk_has_the_same_head_and_the_last_one_a_reason(server, path, body, kind):
    found = chunks(server, path, body | GREEDY | {"max_tokens": 6})
    assert len({chunk["id"] for chunk in found}) == 1 and len({chunk["created"] for chunk in found}) == 1
    assert all(chunk["object"] == kind and chunk["model"] == "tiny" for chunk in found)
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in found]
    assert reasons[-1] in ("stop", "length") and not any(reasons[:-1])


def test_the_role_comes_first_and_once(server):
    body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 6, "n": 2, "seed": 1}
    found = chunks(server, "/v1/chat/completions", body)
    for index in range(2):
        deltas = [c["choices"][0]["delta"] for c in found if c["choices"][0]["index"] == index]
        assert deltas[0]["role"] == "assistant" and not any("role" in delta for delta in deltas[1:])


def test_usage_in_streams(server):
    body = {"prompt": PROMPT, "max_tokens": 6, "ignore_eos": True, **GREEDY}
    assert not any("usage" in chunk for chunk in chunks(server, "/v1/completions", body))
    *found, last = chunks(server, "/v1/completions", body | {"stream_options": {"include_usage": True}})
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 6
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in found)
    options = {"include_usage": True, "continuous_usage_stats": True}
    *found, last = chunks(server, "/v1/completions", body | {"stream_options": options})
    counts = [chunk["usage"]["completion_tokens"] for chunk in found]
    assert counts == sorted(counts) and counts[-1] == last["usage"]["completion_tokens"] == 6


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("max_tokens", [0, 1, 5])
def test_echoed_logprobs_are_the_prompts_own(server, expected, stream, max_tokens):
    body = {"prompt": PROMPT, "max_tokens": max_tokens, "echo": True, "logprobs": 3, **GREEDY}
    if stream:
        choices = [chunk["choices"][0] for chunk in chunks(server, "/v1/completions", body)]
    else:
        choices = post(server, "/v1/completions", body)[1]["choices"]
    text = "".join(choice["text"] for choice in choices)
    found = {
        name: [one for choice in choices for one in choice["logprobs"][name]]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    }
    ids, known = expected.prompt_token_ids, expected.prompt_logprobs
    assert text.startswith(PROMPT)
    assert [len(found[name]) for name in found] == [len(ids) + max_tokens] * 4
    assert found["token_logprobs"][0] is None and found["top_logprobs"][0] is None
    for i in range(1, len(ids)):
        assert found["token_logprobs"][i] == pytest.approx(known[i][ids[i]].logprob, abs=1e-4)
        assert len(found["top_logprobs"][i]) >= 3
    own = expected.outputs[0]
    for i in range(max_tokens):
        logprob = own.logprobs[i][own.token_ids[i]].logprob
        assert found["token_logprobs"][len(ids) + i] == pytest.approx(logprob, abs=1e-4)
    ends = [start + len(token) for start, token in zip(found["text_offset"], found["tokens"], strict=True)]
    assert found["text_offset"] == [0, *ends[:-1]]


def test_a_completion_token_limit_of_zero_generates_nothing(client):
    reply = client.completions.create(prompt=PROMPT, max_tokens=0, echo=True, **GREEDY)
    assert reply.choices[0].text == PROMPT and reply.usage.completion_tokens == 0


def test_chat_logprobs(client, server):
    reply = client.chat.completions.create(
        messages=[{"role": "user", "content": "a"}], max_tokens=4, logprobs=True, top_logprobs=2, **GREEDY
    )
    content = reply.choices[0].logprobs.content
    assert len(content) == reply.usage.completion_tokens
    for one in content:
        assert len(one.top_logprobs) == 2 and one.top_logprobs[0].logprob >= one.top_logprobs[1].logprob
        assert one.logprob == one.top_logprobs[0].logprob  # greedy
    joined = b"".join(bytes(one.bytes) for one in content)
    assert joined.decode(errors="replace").startswith(reply.choices[0].message.content.rstrip("\ufffd"))


def test_unknown_fields_are_accepted(client):
    extra = {"a_field_of_tomorrow": {"x": 1}}
    assert client.completions.create(prompt="a", max_tokens=2, extra_body=extra, **GREEDY).choices


def test_vllms_fields(client, server):
    def text(**extra):
        reply = client.completions.create(prompt=PROMPT, max_tokens=8, seed=3, model="tiny", extra_body=extra)
        return reply.choices[0].text

    greedy = client.completions.create(prompt=PROMPT, max_tokens=8, **GREEDY).choices[0].text
    assert text(top_k=1) == greedy and text(min_p=1.0) == greedy
    assert text(top_k=1, repetition_penalty=5.0) != greedy
    first = (
        tiny.llm().generate(PROMPT, SamplingParams(temperature=0, max_tokens=1))[0].outputs[0].token_ids[0]
    )
    reply = client.completions.create(
        prompt=PROMPT, extra_body={"stop_token_ids": [first], "return_token_ids": True}, **GREEDY
    )
    assert reply.choices[0].finish_reason == "stop" and reply.choices[0].token_ids == [first]
    _, reply = post(
        server, "/v1/completions", {"prompt": PROMPT, "prompt_logprobs": 1, "max_tokens": 1} | GREEDY
    )
    assert reply["choices"][0]["prompt_logprobs"][0] is None
    assert all("decoded_token" in one for one in reply["choices"][0]["prompt_logprobs"][1].values())


def test_stop_strings_are_held_back(server):
    body = {"prompt": PROMPT, "max_tokens": 30, "ignore_eos": True} | GREEDY
    whole = post(server, "/v1/completions", body)[1]["choices"][0]["text"]
    stop = whole[6:9]
    reply = post(server, "/v1/completions", body | {"stop": [stop]})[1]["choices"][0]
    assert reply["text"] == whole[: whole.index(stop)]
    assert reply["finish_reason"] == "stop" and reply["stop_reason"] == stop
    texts = [
        chunk["choices"][0]["text"] for chunk in chunks(server, "/v1/completions", body | {"stop": stop})
    ]
    assert "".join(texts) == reply["text"]
    kept = post(server, "/v1/completions", body | {"stop": stop, "include_stop_str_in_output": True})[1]
    assert kept["choices"][0]["text"].endswith(stop)


def test_logit_bias_has_texts_as_keys(client):
    reply = client.completions.create(
        prompt="a", max_tokens=1, logit_bias={"17": 100}, extra_body={"return_token_ids": True}, **GREEDY
    )
    assert reply.choices[0].token_ids == [17]


def test_the_asynchronous_client_cancels_midway(server):
    async def main():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            stream = await client.completions.create(
                prompt=PROMPT, max_tokens=80, stream=True, extra_body={"ignore_eos": True}, **GREEDY
            )
            async for _ in stream:
                break
            await stream.close()
            several = [client.completions.create(prompt=PROMPT, max_tokens=12, **GREEDY) for _ in range(8)]
            return {reply.choices[0].text for reply in await asyncio.gather(*several)}

    assert len(asyncio.run(main())) == 1
    wait_until(lambda: server.service.num_open == 0)
    [replica] = server.registry
    wait_until(lambda: replica.kv_cache_usage == 0)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(server):
    body = json.dumps({"prompt": PROMPT, "max_tokens": 3, "stream": True, "ignore_eos": True} | GREEDY)
    command = [
        "curl",
        "-sN",
        f"{server.url}/v1/completions",
        "-H",
        "Content-Type: application/json",
        "-d",
        body,
    ]
    lines = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True
    ).stdout.splitlines()
    assert lines[0].startswith('data: {"id": "cmpl-') and lines[-2:] == ["data: [DONE]", ""]


def test_tokenize_and_back(server):
    status, reply = post(server, "/tokenize", {"model": "tiny", "prompt": PROMPT, "return_token_strs": True})
    ids = tiny.llm().encode(PROMPT)[1]
    assert status == 200 and reply["tokens"] == ids and reply["count"] == len(ids) == len(reply["token_strs"])
    assert reply["max_model_len"] == tiny.CONTEXT
    assert PROMPT in post(server, "/detokenize", {"tokens": ids})[1]["prompt"]
    chat = post(server, "/tokenize", {"messages": [{"role": "user", "content": "a"}]})[1]
    assert chat["tokens"] == tiny.llm().apply_chat_template([{"role": "user", "content": "a"}])


def test_pages_without_a_network(server):
    status, page = get(server, "/docs")
    assert status == 200 and "/v1/chat/completions" in page and "max_completion_tokens" in page
    assert "http://" not in page and "https://" not in page and "<script" not in page
    status, description = get(server, "/openapi.json")
    assert status == 200 and "/v1/completions" in json.loads(description)["paths"]
    assert json.loads(get(server, "/version")[1])["version"]
    assert json.loads(get(server, "/health")[1]) == {"status": "ok", "engines": {"tiny/0": "ok"}}


def test_events_reach_a_client_that_reads_bytes(server):
    assert events(server, "/v1/completions", {"prompt": "a", "max_tokens": 2} | GREEDY)[-1] == "[DONE]"
