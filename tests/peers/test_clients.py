"""Public clients of OpenAI's API work with our server: guidellm, lm-eval, LangChain, schemathesis.

`make peers` installs guidellm and the others into two environments and runs these tests.
"""

import asyncio
import json
import os
import re
import subprocess

import pytest

from minillm import LLM, SamplingParams
from minillm.model.stored import open_model
from minillm.serving.bench import Load, Report, measure, random_prompts
from tests.peers.servers import MODEL, running
from tests.peers.test_vllm import ROOT

pytestmark = pytest.mark.peer

GUIDELLM = ROOT / ".peers/guidellm-0.8.1/bin/python"
CLIENTS = ROOT / ".peers/clients/bin"
SCRIPTS = ROOT / "tests/peers/clients"
AGREEMENT = 1.25  # largest ratio of two measurements of the same load on a machine with other work
NUM_REQUESTS, NUM_CLIENTS, INPUT_LEN, OUTPUT_LEN = 48, 4, 32, 24
TASK = """\
task: continuation
dataset_path: json
dataset_kwargs: {data_files: {test: DOCUMENTS}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{beginning}}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    for python in (GUIDELLM, CLIENTS / "python"):
        if not python.exists():
            pytest.skip(f"{python.parents[1].name} is not installed: run `make peers`")
    with running("minillm", tmp_path_factory.mktemp("server")) as server:
        yield server.url


def run(*command, cwd, timeout=240):
    environment = {
        **os.environ,
        "PYTHONPATH": "",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(cwd / "hf"),
        "OPENAI_API_KEY": "none",
    }
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def guidellm(url, folder):
    run(
        *(GUIDELLM, "-m", "guidellm", "run", "--backend", f"kind=openai_http,target={url},model=tinytales"),
        *("--profile", f"kind=concurrent,streams={NUM_CLIENTS}"),
        *("--constraint", f"kind=max_requests,count={NUM_REQUESTS}"),
        *("--tokenizer", f"kind=hf_auto,model={MODEL}"),
        *("--data", f"kind=synthetic_text,prompt_tokens={INPUT_LEN},output_tokens={OUTPUT_LEN}"),
        cwd=folder,
    )
    [report] = folder.glob("*.json")
    return json.loads(report.read_text())["benchmarks"][0]


def ours(url, seed):
    prompts = random_prompts(NUM_REQUESTS, INPUT_LEN, seed)
    load = Load(url=url, model="tinytales", prompts=prompts, output_len=OUTPUT_LEN, concurrency=NUM_CLIENTS)
    return Report.of(*asyncio.run(measure(load)))


def test_our_figures_agree_with_guidellm(url, tmp_path):
    before = ours(url, 1)
    theirs = guidellm(url, tmp_path)
    after = ours(url, 2)
    figures = theirs["metrics"]
    assert figures["request_totals"]["successful"] == NUM_REQUESTS
    found = {
        "TTFT": ((before.ttft.p50, after.ttft.p50), figures["time_to_first_token_ms"]),
        "ITL": ((before.tpot.p50, after.tpot.p50), figures["inter_token_latency_ms"]),
        "latency": ((before.latency.p50, after.latency.p50), figures["request_latency"]),
    }
    wrong = {}
    for name, (mine, distribution) in found.items():
        value = distribution["successful"]["median"] * (1e3 if name == "latency" else 1)
        if not min(mine) / AGREEMENT <= value <= max(mine) * AGREEMENT:
            wrong[name] = (mine, value)
    assert not wrong


def test_lm_eval_finds_the_right_likelihoods(url, tmp_path):
    """Each text has two continuations, its own and that of another text; by chance, half of the answers are right."""
    texts = [text.split() for text in (ROOT / "minillm/models/heldout/stories.txt").read_text().split("\n\n")]
    texts = [words for words in texts if len(words) >= 24][:24]
    documents = [
        {
            "beginning": " ".join(words[:12]),
            "choices": [" " + " ".join(one[12:20]) for one in (words, texts[i - 1])],
            "answer": 0,
        }
        for i, words in enumerate(texts)
    ]
    data = tmp_path / "documents.json"
    data.write_text("\n".join(map(json.dumps, documents)))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "continuation.yaml").write_text(TASK.replace("DOCUMENTS", str(data)))
    out = tmp_path / "out.json"
    run(CLIENTS / "python", SCRIPTS / "likelihood.py", url, MODEL, tasks, out, cwd=tmp_path)
    found = json.loads(out.read_text())
    assert found["results"]["acc,none"] >= 0.9
    assert len(found["samples"]) == len(documents)
    expected = likelihoods([(d["beginning"], choice) for d in documents for choice in d["choices"]])
    reported = [
        answer[0][0]
        for document in documents
        for sample in found["samples"]
        if sample["doc"]["beginning"] == document["beginning"]
        for answer in sample["resps"]
    ]
    assert reported == pytest.approx(expected, abs=1e-2)


def likelihoods(pairs):
    """Return the log-likelihood of each text's second part after its first, from the engine itself.

    lm-eval sends token ids without the token that begins a text.
    """
    tokenizer = open_model(MODEL).tokenizer()
    with LLM(MODEL, max_model_len=256) as llm:
        both = [tokenizer.encode(first + second)[1:] for first, second in pairs]
        starts = [len(tokenizer.encode(first)) - 1 for first, _ in pairs]
        outputs = llm.generate(both, SamplingParams(max_tokens=1, prompt_logprobs=0), use_tqdm=False)
    return [
        sum(
            reported[i].logprob for i, reported in list(zip(ids, output.prompt_logprobs, strict=True))[start:]
        )
        for ids, start, output in zip(both, starts, outputs, strict=True)
    ]


def test_langchain(url, tmp_path):
    out = tmp_path / "out.json"
    run(CLIENTS / "python", SCRIPTS / "langchain_chat.py", url, out, cwd=tmp_path)
    found = json.loads(out.read_text())
    text = found["invoke"]
    assert text and found["finish_reason"] == "length" and found["usage"]["output_tokens"] == 16
    assert "".join(found["stream"]) == "".join(found["astream"]) == found["batch"][0] == text
    assert found["stream_usage"] == 16 and len(found["stream"]) > 8
    assert found["completion"]


def test_schemathesis_finds_no_error_of_the_server(url, tmp_path):
    shown = run(
        *(CLIENTS / "python", "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        *("--checks", "not_a_server_error", "--max-examples", "60", "--seed", "1", "--workers", "2"),
        *("--phases", "examples,fuzzing,stateful"),
        *("--request-timeout", "30", "--generation-database", "none"),
        cwd=tmp_path,
        timeout=400,
    )
    generated, passed = map(int, re.search(r"(\d+) generated, (\d+) passed", shown).groups())
    assert generated == passed > 100
    with_traceback = [
        line for line in (tmp_path.parent).rglob("minillm-server.log") if "Traceback" in line.read_text()
    ]
    assert not with_traceback
