"""Several models and replicas: who serves what, alternately, with which memory, and what the metrics say."""

import subprocess
import sys
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from minillm import RequestError, SamplingParams, cli
from minillm.engine.turns import Turns
from minillm.serving import command, loading
from minillm.serving.registry import Registry
from minillm.serving.server import Server
from tests.engine import tiny
from tests.serving.client import chunks, get, post, raw, steps_of, wait_until

COMPLETIONS = "/v1/completions"


def metrics(server):
    """Return {(name, model, engine, other label): value} of the samples."""
    families = list(text_string_to_metric_families(get(server, "/metrics")[1]))
    found = {}
    for family in families:
        for sample in family.samples:
            labels = dict(sample.labels)
            key = (sample.name, labels.pop("model_name"), labels.pop("engine"), *labels.values())
            found[key] = sample.value
    return found


def test_metrics_count_what_was_served():
    llm = tiny.llm(block_size=4)
    with Server(Registry({"a": llm, "b": tiny.llm()})) as server:
        before = metrics(server)
        assert before[("vllm:generation_tokens_total", "a", "0")] == 0
        assert not any("spec_decode" in key[0] for key in before)
        prompt = [7] * 20
        body = {"model": "a", "prompt": prompt, "max_tokens": 6, "ignore_eos": True}
        post(server, COMPLETIONS, body)
        chunks(server, COMPLETIONS, body | {"n": 2})
        found = metrics(server)
        assert found[("vllm:prompt_tokens_total", "a", "0")] == 40
        assert found[("vllm:generation_tokens_total", "a", "0")] == 18
        assert found[("vllm:request_success_total", "a", "0", "length")] == 3
        assert found[("vllm:prefix_cache_queries_total", "a", "0")] == 40
        assert (
            found[("vllm:prefix_cache_hits_total", "a", "0")] == 16
        )  # four blocks; the last is computed again
        assert found[("vllm:time_to_first_token_seconds_count", "a", "0")] == 2
        assert found[("vllm:time_to_first_token_seconds_bucket", "a", "0", "+Inf")] == 2
        assert found[("vllm:inter_token_latency_seconds_count", "a", "0")] == 10
        assert found[("vllm:e2e_request_latency_seconds_count", "a", "0")] == 3
        assert found[("vllm:e2e_request_latency_seconds_sum", "a", "0")] > 0
        assert found[("vllm:generation_tokens_total", "b", "0")] == 0
        assert found[("vllm:num_preemptions_total", "a", "0")] == 0
        # A rebuilt engine goes on counting.
        llm.rebuild(block_size=8)
        assert metrics(server)[("vllm:generation_tokens_total", "a", "0")] == 18
        post(server, COMPLETIONS, body)
        assert metrics(server)[("vllm:generation_tokens_total", "a", "0")] == 24


def test_gauges_show_the_moment(monkeypatch):
    llm = tiny.llm(max_num_seqs=1, num_gpu_blocks_override=12)
    with Server(llm) as server, steps_of(monkeypatch) as steps:
        name, [replica] = llm.name, server.registry
        body = {"prompt": [7] * 20, "max_tokens": 60, "ignore_eos": True}
        socks = [raw(server, COMPLETIONS, body) for _ in range(2)]
        wait_until(lambda: replica.num_waiting == 2)
        steps.allow(1)
        wait_until(lambda: replica.num_running == 1)
        found = metrics(server)
        assert found[("vllm:num_requests_running", name, "0")] == 1
        assert found[("vllm:num_requests_waiting", name, "0")] == 1
        assert found[("vllm:kv_cache_usage_perc", name, "0")] == pytest.approx(2 / 12)
        for sock in socks:
            sock.close()


def test_preemptions_and_drafts_are_counted():
    config = {"method": "ngram", "num_speculative_tokens": 3}
    with Server(tiny.llm(num_gpu_blocks_override=6, speculative_config=config)) as server:
        name = next(iter(server.registry.replicas))
        body = {
            "prompt": [[5, 6, 7] * 5, [8, 9, 7] * 5],
            "max_tokens": 60,
            "ignore_eos": True,
            "temperature": 0,
        }
        post(server, COMPLETIONS, body)
        found = metrics(server)
        assert found[("vllm:num_preemptions_total", name, "0")] >= 1
        drafts = found[("vllm:spec_decode_num_draft_tokens_total", name, "0")]
        accepted = found[("vllm:spec_decode_num_accepted_tokens_total", name, "0")]
        assert drafts >= accepted > 0
        assert drafts >= found[("vllm:spec_decode_num_drafts_total", name, "0")] > 0


@pytest.mark.parametrize(("routing", "engines"), [("prefix", [0, 0, 1]), ("load", [0, 1, 0])])
def test_routing(monkeypatch, routing, engines):
    """Two requests share a long prefix, while the first replica has some other work; a third shares nothing."""
    registry = Registry({"m": [tiny.llm(), tiny.llm()]}, routing)
    first, second = registry.replicas["m"]
    with Server(registry) as server:
        prefix = list(range(10, 74))
        post(server, COMPLETIONS, {"prompt": prefix, "max_tokens": 1})
        assert first.counters.prompt_tokens == 64
        with steps_of(monkeypatch) as steps:
            socks = [raw(server, COMPLETIONS, {"prompt": prefix[:3], "max_tokens": 12, "ignore_eos": True})]
            wait_until(lambda: first.num_waiting == 1)
            socks.append(raw(server, COMPLETIONS, {"prompt": [*prefix, 3], "max_tokens": 25}))
            wait_until(lambda: first.num_waiting + second.num_waiting == 2)
            taken = [0, int(second.num_waiting == 1)]
            socks.append(raw(server, COMPLETIONS, {"prompt": [5, 4, 3], "max_tokens": 1}))
            wait_until(lambda: first.num_waiting + second.num_waiting == 3)
            taken.append(int(second.num_waiting > taken[1]))
            steps.open = True
            for sock in socks:
                assert sock.recv(4096)
                sock.close()
        assert taken == engines
    tiny.assert_idle(first.llm)
    assert first.candidate([]).num_unfinished_tokens == second.candidate([]).num_unfinished_tokens == 0


def test_a_request_is_load_before_the_engine_takes_it():
    registry = Registry({"m": [tiny.llm(), tiny.llm()]}, "load")
    first, second = registry.replicas["m"]
    goes_on = threading.Event()
    first.llm._loop._call(goes_on.wait)  # the engine's thread is busy, as in a long step
    try:
        params = SamplingParams(max_tokens=7)
        adding = first.enqueue([5, 6, 7], params, prompt=None, priority=0, listener=lambda deltas: None)
        assert first.candidate([]).num_unfinished_tokens == 10
        assert registry.choose("m", [5, 6, 7]) is second
    finally:
        goes_on.set()
    first.release([adding.result()])
    assert first.candidate([]).num_unfinished_tokens == 0
    registry.close()


def test_tokens_in_the_cache_are_no_load():
    registry = Registry({"m": [tiny.llm(block_size=4), tiny.llm(block_size=4)]})
    first = registry.replicas["m"][0]
    prompt = list(range(10, 31))
    first.llm.generate([prompt], SamplingParams(max_tokens=1))
    goes_on = threading.Event()
    first.llm._loop._call(goes_on.wait)
    try:
        params = SamplingParams(max_tokens=7)
        adding = first.enqueue(prompt, params, prompt=None, priority=0, listener=lambda deltas: None)
        assert first.candidate([]).num_unfinished_tokens == 1 + 7  # 20 of 21 tokens are cached
    finally:
        goes_on.set()
    first.release([adding.result()])
    registry.close()


def test_two_models_answer_with_their_own_texts():
    greedy = {"prompt": "the quick", "max_tokens": 8, "temperature": 0}
    with Server(Registry({"a": tiny.llm(), "b": tiny.llm(quantization="int4")})) as server:
        texts = [
            post(server, COMPLETIONS, greedy | {"model": name})[1]["choices"][0]["text"] for name in "ab"
        ]
        assert post(server, COMPLETIONS, greedy)[1]["model"] == "a"  # the first one is the default
        llms = [replica.llm for replica in server.registry]
        params = SamplingParams(temperature=0, max_tokens=8)
        assert texts == [llm.generate("the quick", params)[0].outputs[0].text for llm in llms]
        results = []
        threads = [
            threading.Thread(
                target=lambda n=name: results.append(post(server, COMPLETIONS, greedy | {"model": n}))
            )
            for name in "abababab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(reply["choices"][0]["text"] for _, reply in results) == sorted(texts * 4)


def test_turns_go_round():
    turns, order, started = Turns(), [], []

    def work(name):
        started.append(name)
        for _ in range(5):
            with turns:
                order.append(name)

    threads = []
    with turns:
        for name in range(3):
            threads.append(threading.Thread(target=work, args=(name,)))
            threads[-1].start()
            wait_until(lambda n=name: len(turns._waiting) == n + 1)
    for thread in threads:
        thread.join(10)
    assert all(len(set(order[i : i + 3])) == 3 for i in range(0, 12, 3))
    with turns:  # free again
        pass


def test_turns_survive_an_error():
    turns = Turns()
    with pytest.raises(KeyError), turns:
        raise KeyError
    with turns:
        pass


def test_memory_is_shared_out():
    folder = str(tiny.folder())
    llms = loading.load(
        {"a": folder, "b": folder}, drafts={}, quantization={"b": "int4"}, replicas={"b": 2},
        cache_bytes={"a": 300_000}, max_num_seqs=2,
    )  # fmt: skip
    sizes = {
        name: [sum(t.nbytes for t in tiny.cache_tensors(llm)) for llm in several]
        for name, several in llms.items()
    }
    assert 250_000 < sizes["a"][0] <= 300_000
    assert sizes["b"] == [llms["b"][0].max_cache_bytes] * 2
    assert llms["b"][0].config.quantization == "int4" and llms["a"][0].config.quantization is None
    for several in llms.values():
        for llm in several:
            assert llm.generate("a", SamplingParams(max_tokens=1))[0].finished
            llm.close()


def test_little_memory_is_divided_equally(monkeypatch):
    monkeypatch.setattr(loading, "cache_budget", lambda *_: 1_000_000)
    folder = str(tiny.folder())
    llms = loading.load(
        {"a": folder, "b": folder}, drafts={}, quantization={}, replicas={"b": 2}, cache_bytes={"a": 400_000},
        max_num_seqs=64,
    )  # fmt: skip
    assert [llm.config.kv_cache_memory_bytes for llm in (*llms["a"], *llms["b"])] == [
        400_000,
        300_000,
        300_000,
    ]


def test_options_by_name():
    names = ["a", "b"]
    assert command.by_name("--x", [], names) == {}
    assert command.by_name("--x", ["1"], names) == {"a": "1", "b": "1"}
    assert command.by_name("--x", ["b=2", "1"], names) == {"a": "1", "b": "2"}
    with pytest.raises(RequestError, match="no model is named 'c'"):
        command.by_name("--x", ["c=1"], names)
    assert command.named_models(["tinytales", "b=x/y", "owner/name"]) == {
        "tinytales": "tinytales", "b": "x/y", "owner/name": "owner/name",
    }  # fmt: skip
    for wrong in (["a", "a"], ["=x"], ["x="]):
        with pytest.raises(RequestError):
            command.named_models(wrong)


def test_a_registry_needs_models():
    with pytest.raises(ValueError, match="no models"):
        Registry({})
    with pytest.raises(ValueError, match="routing='x'"):
        Registry({"a": tiny.llm()}, "x")


def test_the_command_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for name in [name for name in sys.modules if name.startswith("minillm.serving.")]:
        if name != "minillm.serving.command":
            monkeypatch.delitem(sys.modules, name)
    assert cli.main(["serve", "tinytales"]) == 2
    assert "pip install 'minillm[serve]'" in capsys.readouterr().err


def test_the_command_line_imports_no_server():
    code = (
        "import sys, minillm.cli; minillm.cli._parser()\n"
        "print(sorted({'fastapi', 'uvicorn', 'torch'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_port_in_use_is_a_message(server, capsys):
    port = server.url.rpartition(":")[2]
    assert cli.main(["serve", str(tiny.folder()), "--port", port]) == 2
    assert f"port {port}: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--port", "99999"), ("--port", "-1"), ("--grace", "-1"), ("--grace", "nan"), ("--max-body-bytes", "0")],
)
def test_a_number_out_of_its_limits_is_a_message(option, value, capsys):
    assert cli.main(["serve", str(tiny.folder()), f"{option}={value}"]) == 2
    assert (
        f"{option} {float(value) if option == '--grace' else value}: give a number from"
        in capsys.readouterr().err
    )


def test_a_port_is_taken_before_models_are_loaded(server, capsys):
    port = server.url.rpartition(":")[2]
    assert cli.main(["serve", "no-such-model", "--port", port]) == 2
    assert "cannot listen" in capsys.readouterr().err
    assert cli.main(["serve", "no-such-model", "--port", "0"]) == 2
    assert "no-such-model" in capsys.readouterr().err
