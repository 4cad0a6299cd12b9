"""The front door: prompts in every form, streams, interruption, and errors that say what to do."""

import asyncio
import inspect
import json
import threading

import numpy as np
import pytest
import torch

import minillm.assembly
import minillm.llm
from minillm import LLM, CheckpointError, RequestError, SamplingParams
from minillm.config import EngineConfig
from minillm.measure.trace import StepRecord
from minillm.sampling import derive_seed
from tests.engine import tiny
from tests.engine.tiny import PROMPTS, assert_idle, says

GREEDY = SamplingParams(temperature=0, max_tokens=12)
LONG = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
HELLO = "the quick brown fox"


@pytest.fixture
def llm():
    with tiny.llm() as llm:
        yield llm
        if llm._loop._engine is not None:
            assert_idle(llm)


@pytest.fixture(scope="module")
def without_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ids-only")
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        (folder / name).symlink_to(tiny.folder() / name)
    return LLM(folder, max_num_seqs=2)


def only(outputs):
    [output] = outputs
    [sample] = output.outputs
    return sample


# ---- prompts ----


def test_a_prompt_is_text_or_ids_or_a_dict_one_or_many(llm):
    ids = llm.tokenizer.encode(HELLO)
    expected = tiny.greedy(tuple(ids), 12)
    for prompts in (
        HELLO,
        ids,
        tuple(ids),
        {"prompt_token_ids": ids},
        {"prompt": HELLO},
        {"prompt": "a label", "prompt_token_ids": ids},
        np.array(ids).tolist(),
        list(np.array(ids)),
        [list(np.array(ids, np.uint16))],
        [HELLO],
        [ids],
        [{"prompt_token_ids": ids}],
    ):
        assert only(llm.generate(prompts, GREEDY)).token_ids == expected
    outputs = llm.generate([HELLO, ids, {"prompt_token_ids": ids[:3]}], GREEDY)
    assert [output.prompt for output in outputs] == [HELLO, None, None]
    assert [output.prompt_token_ids for output in outputs] == [ids, ids, ids[:3]]
    assert tiny.tokens(outputs)[:2] == [[expected], [expected]]
    assert llm.generate([]) == []


def test_the_text_is_the_decoded_output(llm):
    sample = only(llm.generate(HELLO, LONG))
    assert sample.text == llm.tokenizer.decode(sample.token_ids)
    assert "\ufffd" in sample.text, "random bytes, to see that broken characters pass too"


def test_params_are_one_for_all_or_one_each_or_the_defaults(llm):
    each = [SamplingParams(max_tokens=k, ignore_eos=True) for k in (1, 2)]
    assert [len(s[0]) for s in tiny.tokens(llm.generate(["a", "b"], each))] == [1, 2]
    assert [len(s[0]) for s in tiny.tokens(llm.generate(["a", "b"], each[1]))] == [2, 2]
    assert 1 <= len(only(llm.generate("a")).token_ids) <= 16


def test_a_chat_is_the_template_and_an_answer(llm):
    messages = [{"role": "user", "content": "once upon a time"}]
    ids = llm.apply_chat_template(messages)
    text = llm.tokenizer.decode(ids, skip_special_tokens=False)
    assert text == "<|end|><|user|>once upon a time<|assistant|>" and ids.count(0) == 1
    expected = tiny.greedy(tuple(ids), 12)
    assert only(llm.chat(messages, GREEDY)).token_ids == expected
    assert tiny.tokens(llm.chat([messages, messages], GREEDY)) == [[expected]] * 2


def test_a_model_without_a_tokenizer_takes_and_gives_ids(without_tokenizer):
    sample = only(without_tokenizer.generate(list(PROMPTS[0]), GREEDY))
    assert (sample.text, sample.token_ids) == ("", tiny.greedy(PROMPTS[0], 12))
    assert "".join(piece.text for piece in without_tokenizer.stream(list(PROMPTS[0]), GREEDY)) == ""


def test_detokenize_off_gives_ids_alone(llm):
    sample = only(llm.generate(HELLO, SamplingParams(temperature=0, max_tokens=5, detokenize=False)))
    assert sample.text == "" and len(sample.token_ids) == 5


def test_a_progress_bar_counts_requests_of_a_run_that_takes_long(llm, capsys, monkeypatch):
    llm.generate([HELLO, HELLO], GREEDY)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(minillm.llm, "PROGRESS_AFTER", 0)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    llm.generate([HELLO, HELLO], GREEDY)
    assert "requests: 100%" in capsys.readouterr().err
    llm.generate([HELLO, HELLO], GREEDY, use_tqdm=False)
    assert capsys.readouterr().err == ""


# ---- streams ----

STREAMS = {
    "random bytes": LONG,
    "several samples": SamplingParams(n=3, seed=3, max_tokens=30),
    "held back for a stop string": says("one ST two STO three STOP four", stop=["STOP", "zz"]),
    "held back in vain": says("one ST two STO", stop="STOP", max_tokens=13),
    "wide characters": says("ßß 字字 😀 字", 5),
}


@pytest.mark.parametrize("params", STREAMS.values(), ids=STREAMS.keys())
def test_a_streams_pieces_are_what_generate_returns(llm, params):
    [expected] = llm.generate(HELLO, params)
    pieces = list(llm.stream(HELLO, params))
    for sample in expected.outputs:
        own = [piece for piece in pieces if piece.index == sample.index]
        assert "".join(piece.text for piece in own) == sample.text
        assert [i for piece in own for i in piece.token_ids] == sample.token_ids
        assert [piece.finish_reason for piece in own] == [None] * (len(own) - 1) + [sample.finish_reason]
    assert all(piece.text or piece.token_ids or piece.finish_reason for piece in pieces)


def test_a_stream_shows_whole_characters_as_soon_as_they_are_whole(llm):
    pieces = [piece.text for piece in llm.stream(HELLO, STREAMS["wide characters"])]
    assert len(pieces) == len(tiny.ids_of("ßß 字字 😀 字")) + 1
    assert set(pieces) == {"", "ß", " ", "字", "😀"}


def test_the_text_of_a_stop_string_is_never_streamed(llm):
    pieces = [piece.text for piece in llm.stream(HELLO, STREAMS["held back for a stop string"])]
    assert "STO" in "".join(pieces) and not any("STOP" in piece for piece in pieces)
    assert "".join(pieces) == "one ST two STO three "


def test_leaving_a_stream_aborts_its_request(llm):
    for piece in llm.stream(HELLO, LONG):
        assert piece.finish_reason is None
        break
    assert_idle(llm)
    stream = llm.stream(HELLO, LONG)
    next(stream)
    assert llm.engine.has_unfinished
    stream.close()
    assert_idle(llm)


def test_a_stream_may_be_dropped_while_a_step_runs(llm):
    """The garbage collector may close a stream at any time, in the thread that holds the lock too."""
    dropped = llm.stream(HELLO, LONG)
    next(dropped)

    def drop(output, logits):
        dropped.close()
        return logits

    outputs = []
    params = SamplingParams(temperature=0, max_tokens=12, logits_processors=[drop])
    thread = threading.Thread(target=lambda: outputs.extend(llm.generate(HELLO, params)), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "deadlock"
    assert only(outputs).token_ids == only(llm.generate(HELLO, GREEDY)).token_ids


def test_streams_may_take_turns(llm):
    streams = [llm.stream(list(prompt), LONG) for prompt in PROMPTS[:3]]
    found: list[list[int]] = [[] for _ in streams]
    num_pieces = 0
    unfinished = dict(enumerate(streams))
    while unfinished:
        for i, stream in list(unfinished.items()):
            piece = next(stream, None)
            if piece is None:
                del unfinished[i]
            else:
                found[i] += piece.token_ids
                num_pieces += 1
    assert num_pieces > 3 * 60 * 0.9, "what another stream's step brought is given out before the next step"
    alone = tiny.tokens(llm.generate([list(prompt) for prompt in PROMPTS[:3]], LONG))
    assert [[ids] for ids in found] == alone


def test_a_stream_of_a_closed_llm_says_so():
    llm = tiny.llm()
    stream = llm.stream(HELLO, LONG)
    next(stream)
    llm.close()
    with pytest.raises(RuntimeError, match="closed"):
        list(stream)


async def collect(llm, prompt, params):
    return [piece async for piece in llm.astream(prompt, params)]


def test_async_streams_share_the_steps_and_give_what_they_give_alone():
    llm = tiny.llm(max_num_seqs=8, trace=True)
    params = [
        SamplingParams(seed=i, n=1 + i % 2, max_tokens=30, stop=["STOP", "\ufffd"] if i % 3 == 0 else None)
        for i in range(8)
    ]
    expected = [llm.generate(HELLO, one)[0] for one in params]
    llm.trace.clear()

    async def all_at_once():
        return await asyncio.gather(*(collect(llm, HELLO, one) for one in params))

    for output, pieces in zip(expected, asyncio.run(all_at_once()), strict=True):
        for sample in output.outputs:
            own = [piece for piece in pieces if piece.index == sample.index]
            assert "".join(piece.text for piece in own) == sample.text
            assert [i for piece in own for i in piece.token_ids] == sample.token_ids
            assert own[-1].finish_reason == sample.finish_reason
    computed = sum(len(sample.token_ids) for output in expected for sample in output.outputs)
    assert len(llm.trace.of(StepRecord)) < computed / 2
    assert_idle(llm)


@pytest.mark.parametrize("how", ["break", "aclose", "cancel"])
def test_leaving_an_async_stream_aborts_its_request(llm, how):
    async def leave():
        other = asyncio.create_task(collect(llm, list(PROMPTS[0]), GREEDY))
        if how == "cancel":
            task = asyncio.create_task(collect(llm, HELLO, LONG))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            stream = llm.astream(HELLO, LONG)
            async for _ in stream:
                break
            if how == "aclose":
                await stream.aclose()
            del stream
        return await other

    pieces = asyncio.run(leave())
    assert [i for piece in pieces for i in piece.token_ids] == tiny.greedy(PROMPTS[0], 12)
    assert_idle(llm)


def test_an_async_stream_hands_its_errors_on(llm):
    def fail(output, logits):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(collect(llm, HELLO, SamplingParams(logits_processors=[fail])))
    with pytest.raises(RequestError, match="empty"):
        asyncio.run(collect(llm, "", GREEDY))


# ---- Ctrl-C ----


def test_ctrl_c_returns_what_there_is():
    llm = tiny.llm(max_num_seqs=2)

    def interrupt(output, logits):
        if len(output) == 3:
            raise KeyboardInterrupt
        return logits

    interrupted = SamplingParams(temperature=0, ignore_eos=True, logits_processors=[interrupt])
    short = SamplingParams(temperature=0, ignore_eos=True, max_tokens=2)
    with pytest.warns(UserWarning, match=r"interrupted: 3 of 4 outputs are unfinished") as caught:
        outputs = llm.generate([HELLO] * 4, [short, interrupted, LONG, LONG])
    assert caught[0].filename == __file__
    samples = [output.outputs[0] for output in outputs]
    assert [sample.finish_reason for sample in samples] == ["length", "abort", "abort", "abort"]
    assert [len(sample.token_ids) for sample in samples] == [2, 3, 1, 0]
    assert samples[1].text == llm.tokenizer.decode(samples[1].token_ids)
    assert_idle(llm)
    assert only(llm.generate(HELLO, short)).token_ids == samples[0].token_ids


def test_a_request_that_fails_in_generate_does_not_stop_the_others(llm):
    def fail(output, logits):
        raise ZeroDivisionError("in a processor")

    with pytest.raises(RequestError, match=r"1 of 9 requests failed.*ZeroDivisionError: in a processor"):
        llm.generate([HELLO] * 9, [*[LONG] * 8, SamplingParams(logits_processors=[fail])])
    assert_idle(llm)
    assert only(llm.generate(HELLO, GREEDY)).finish_reason


# ---- bad input ----

BAD_PROMPTS = {
    "empty text": ("", RequestError, "the prompt is empty: give text of at least one character"),
    "empty ids": ([[]], RequestError, "the prompt is empty: give at least one token"),
    "empty ids in a dict": ({"prompt_token_ids": []}, RequestError, "the prompt is empty"),
    "unknown keys": (
        {"text": "a"},
        RequestError,
        r"the key 'prompt' with text, or .* no others, not \['text'\]",
    ),
    "an empty dict": ({}, RequestError, r"no others, not \[\]"),
    "no text in the dict": ({"prompt": 5}, TypeError, "a prompt is text.*not int"),
    "text in the dict": ({"prompt_token_ids": "a"}, TypeError, "list of token ids.*not str"),
    "bytes": (b"abc", TypeError, "a prompt is text, a list of token ids .*not bytes"),
    "empty bytes": (b"", TypeError, "a prompt is text, a list of token ids .*not bytes"),
    "None": (None, TypeError, "a prompt is text.*not NoneType"),
    "a number": (5, TypeError, "a prompt is text.*not int"),
    "numbers that are no ids": ([1.5, 2.0], TypeError, "a prompt is text.*not float"),
    "a generator": ((text for text in "ab"), TypeError, "a prompt is text.*not generator"),
    "a tensor": (torch.tensor([3, 4]), TypeError, "a prompt is text.*not Tensor"),
    "a bool among ids": ([3, False], RequestError, r"prompt_token_ids\[1\] is False"),
    "an id too large": ([[3], [999]], RequestError, r"prompt_token_ids\[0\] is 999.*0 to 299"),
    "too long a text": ("8" * 95, RequestError, "has 96 tokens and max_model_len is 96.*Shorten it to 95"),
}


@pytest.mark.parametrize(("prompts", "error", "message"), BAD_PROMPTS.values(), ids=BAD_PROMPTS.keys())
def test_a_prompt_that_cannot_be_is_refused(llm, prompts, error, message):
    with pytest.raises(error, match=message):
        llm.generate(prompts, GREEDY)


def test_one_refused_prompt_queues_none(llm):
    with pytest.raises(RequestError, match="empty"):
        llm.generate([HELLO, [3, 4], "", HELLO], LONG)
    assert_idle(llm)


BAD_PARAMS = {
    "too few": ([GREEDY], ValueError, "2 prompts but 1 sampling_params: give one, or one each"),
    "none at all": ([], ValueError, "2 prompts but 0 sampling_params"),
    "a dict": ({"max_tokens": 3}, TypeError, "sampling_params is a dict: give a SamplingParams"),
    "an empty dict": ({}, TypeError, "sampling_params is a dict"),
    "a number": (0, TypeError, "sampling_params is a int"),
    "a wrong one among them": ([GREEDY, "x"], TypeError, "sampling_params is a str"),
}


@pytest.mark.parametrize(("params", "error", "message"), BAD_PARAMS.values(), ids=BAD_PARAMS.keys())
def test_params_that_are_none_are_refused(llm, params, error, message):
    with pytest.raises(error, match=message):
        llm.generate([HELLO, HELLO], params)


def test_a_stream_refuses_what_generate_refuses(llm):
    with pytest.raises(RequestError, match="empty"):
        next(llm.stream("", GREEDY))
    with pytest.raises(TypeError, match="sampling_params is a dict"):
        next(llm.stream(HELLO, {}))


def test_max_tokens_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"max_tokens=0.*at least 1"):
        SamplingParams(max_tokens=0)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda llm: llm.generate("hello"), "a text prompt needs a tokenizer.*give token ids"),
        (lambda llm: llm.chat([{"role": "user", "content": "x"}]), "chat needs a tokenizer"),
        (lambda llm: llm.generate([3], SamplingParams(stop="x")), r"stop=\['x'\].*use stop_token_ids"),
        (
            lambda llm: llm.generate([3], SamplingParams(bad_words=["x"])),
            "bad_words needs a tokenizer.*logit_bias",
        ),
    ],
)
def test_without_a_tokenizer_text_is_refused(without_tokenizer, call, what):
    with pytest.raises(RequestError, match=what):
        call(without_tokenizer)
    assert_idle(without_tokenizer)


def test_chat_without_a_template_is_refused(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(tiny.folder() / name)
    tiny.save_tokenizer(tmp_path)
    with (
        LLM(tmp_path, max_num_seqs=1) as llm,
        pytest.raises(RequestError, match="no chat template"),
    ):
        llm.chat([{"role": "user", "content": "x"}])


@pytest.mark.parametrize("messages", ["hello", ["hello"], [["hello"]]])
def test_a_conversation_of_other_things_than_messages_is_refused(llm, messages):
    with pytest.raises(TypeError, match="a conversation is a list of"):
        llm.chat(messages)


def test_a_closed_llm_says_so():
    with tiny.llm() as llm:
        pass
    llm.close()
    with pytest.raises(RuntimeError, match="closed: make a new one"):
        llm.generate(HELLO)


def test_closing_gives_the_cache_back():
    import gc
    import weakref

    llm = tiny.llm()
    llm.generate(HELLO, GREEDY)
    memory = weakref.ref(llm.engine.runner.cache.layers[0].k)
    llm.close()
    gc.collect()
    assert memory() is None


# ---- making one ----

BAD_ARGUMENTS = {
    "dtype": ({"dtype": "int8"}, ValueError, "dtype='int8' is not supported: use 'auto', 'float32'"),
    "device": ({"device": "tpu"}, ValueError, "device='tpu'.*use 'auto', 'cpu' or 'cuda'"),
    "another device": ({"device": "meta"}, ValueError, "device='meta' is not supported"),
    "max_model_len": ({"max_model_len": 97}, ValueError, "max_model_len=97 exceeds the model's 96 positions"),
    "max_model_len of 1": (
        {"max_model_len": 1},
        ValueError,
        "max_model_len=1: give an integer of at least 2",
    ),
    "max_num_seqs": ({"max_num_seqs": 0}, ValueError, "max_num_seqs=0: give an integer of at least 1"),
    "a bool": ({"max_num_seqs": True}, ValueError, "max_num_seqs=True"),
    "seed": ({"seed": -1}, ValueError, "seed=-1"),
    "kv_cache": (
        {"kv_cache": "dense"},
        ValueError,
        "kv_cache='dense' is not supported: use 'paged' or 'contiguous' or 'virtual' or 'none'",
    ),
    "policy": (
        {"scheduling_policy": "lifo"},
        ValueError,
        "scheduling_policy='lifo' is not supported: use 'fcfs' or 'priority'",
    ),
    "block_size": ({"block_size": 0}, ValueError, "block_size=0: give an integer of at least 1"),
    "blocks": ({"num_gpu_blocks_override": 0}, ValueError, "num_gpu_blocks_override=0: give an integer of"),
    "threshold": ({"long_prefill_token_threshold": -1}, ValueError, "long_prefill_token_threshold=-1"),
    "a threshold, but no chunks": (
        {"enable_chunked_prefill": False, "long_prefill_token_threshold": 8},
        ValueError,
        "long_prefill_token_threshold=8 cuts prompts into chunks, but enable_chunked_prefill is False",
    ),
    "utilization": ({"gpu_memory_utilization": 0}, ValueError, "gpu_memory_utilization=0"),
    "no chunks, small budget": (
        {"enable_chunked_prefill": False, "max_num_batched_tokens": 95},
        ValueError,
        "max_num_batched_tokens=95 is below max_model_len=96",
    ),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS.keys())
def test_an_argument_that_cannot_be_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        LLM(tiny.folder(), **{"max_num_seqs": 2} | arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_refused():
    with pytest.raises(
        ValueError, match=r"device='cuda', but torch sees no CUDA device here: use device='cpu'"
    ):
        LLM(tiny.folder(), device="cuda")


def test_a_cache_that_memory_cannot_hold_is_refused(monkeypatch):
    row = tiny.CONTEXT * 2 * 2 * 2 * 8 * 4  # tokens x layers x (k, v) x heads x head_dim x bytes
    monkeypatch.setattr(minillm.assembly, "available_bytes", lambda: 4 * row - 4)
    with pytest.raises(
        ValueError, match=r"max_model_len=96 tokens takes .* MiB, but .* smaller max_model_len"
    ):
        tiny.llm()
    with tiny.llm(max_model_len=80) as llm:
        assert llm.engine.memory.num_blocks == 5


def test_blocks_are_as_many_as_memory_holds_and_the_rest_waits(monkeypatch):
    row = tiny.CONTEXT * 2 * 2 * 2 * 8 * 4
    monkeypatch.setattr(minillm.assembly, "available_bytes", lambda: 4 * (2 * row + 1))
    with tiny.llm(max_num_seqs=4) as llm:
        assert llm.engine.memory.num_blocks == 12
        outputs = llm.generate([list(prompt) for prompt in PROMPTS], GREEDY)
    assert tiny.tokens(outputs) == [[tiny.greedy(prompt, 12)] for prompt in PROMPTS]


def test_a_variant_shares_weights_and_nothing_else(llm):
    other = llm.variant(kv_cache="none", max_model_len=20)
    assert other.model is llm.model and other.engine is not llm.engine
    assert (other.config.kv_cache, other.config.max_model_len) == ("none", 20)
    assert (llm.config.kv_cache, llm.config.max_model_len) == ("paged", tiny.CONTEXT)
    with pytest.raises(TypeError, match=r"variant\(\) has no argument 'device': it takes max_model_len, "):
        llm.variant(device="cpu")
    with pytest.raises(ValueError, match="max_num_seqs=0"):
        llm.variant(max_num_seqs=0)


def test_nothing_is_recorded_unless_asked(llm):
    llm.generate(HELLO, GREEDY)
    assert llm.engine.trace is None
    with pytest.raises(RuntimeError, match="trace=True"):
        llm.trace  # noqa: B018


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no-such-model",
            r"no model 'no-such-model': it is not a folder, not a GGUF file, not a bundled model \(.*hub id such as",
        ),
        ("/no/such/folder", "no model '/no/such/folder'"),
        ("./here", r"no model '\./here'"),
        (
            "nobody/nothing",
            r"cannot fetch 'nobody/nothing' from the hub \(LocalEntryNotFoundError\).*bundled",
        ),
        ("a/b c", "'a/b c'"),
    ],
)
def test_a_model_that_is_not_there_is_named(name, message):
    with pytest.raises(CheckpointError, match=message):
        LLM(name)


def test_a_lower_precision_can_be_asked_for():
    with LLM(tiny.folder(), dtype="bfloat16", max_num_seqs=1) as llm:
        assert llm.model.dtype == llm.engine.runner.cache.layers[0].k.dtype == torch.bfloat16
        assert only(llm.generate(HELLO, GREEDY)).token_ids


# ---- vLLM's words ----


def test_without_params_a_models_recommended_sampling_is_used(tmp_path):
    for file in tiny.folder().iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "generation_config.json").unlink()
    recommended = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "repetition_penalty": 1.1, "eos_token_id": 0}
    (tmp_path / "generation_config.json").write_text(json.dumps(recommended))
    with LLM(tmp_path, max_num_seqs=2) as llm:
        params = llm.get_default_sampling_params()
        assert {name: getattr(params, name) for name in list(recommended)[:4]} == dict(
            list(recommended.items())[:4]
        )
        params.seed = 0
        assert llm.get_default_sampling_params().seed is None, "a copy"
        own = [params.clone() for _ in range(4)]
        for i, one in enumerate(own):
            one.seed = derive_seed(0, i)
        asked = llm.variant().generate([HELLO] * 4, own)
        assert tiny.tokens(llm.generate([HELLO] * 4)) == tiny.tokens(asked)


def test_the_signature_is_every_engine_argument():
    names = list(inspect.signature(LLM).parameters)
    assert names[:3] == ["model", "dtype", "device"]
    assert names[3:] == list(EngineConfig.__dataclass_fields__)


def test_the_tokenizer_is_the_librarys(llm):
    assert llm.get_tokenizer()(HELLO)["input_ids"] == llm.tokenizer.encode(HELLO)


def test_cached_tokens_are_counted_once_per_request(llm):
    prompt = list(PROMPTS[3])
    assert [llm.generate(prompt, GREEDY)[0].num_cached_tokens for _ in range(2)] == [0, 32]


@pytest.mark.parametrize("kv_cache", ["virtual", "none"])
@pytest.mark.parametrize("kv_cache_dtype", ["int8", "fp8"])
def test_a_cache_without_scales_cannot_be_quantised(llm, kv_cache, kv_cache_dtype):
    with pytest.raises(
        ValueError, match=f"{kv_cache_dtype!r} needs a cache with scales, and kv_cache={kv_cache!r}"
    ):
        llm.variant(kv_cache=kv_cache, kv_cache_dtype=kv_cache_dtype)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tensor_parallel_size", 2),
    ],
)
def test_arguments_that_have_only_a_default_so_far_say_so(llm, name, value):
    default = EngineConfig.__dataclass_fields__[name].default
    llm.variant(**{name: default}).close()
    with pytest.raises(ValueError, match=f"(?s){name}=.* is not supported: use {default!r}"):
        llm.variant(**{name: value})


def test_an_argument_that_vllm_has_and_we_have_not_is_named(llm):
    with pytest.raises(TypeError, match=r"LLM\(\) has no argument 'swap_space': it takes max_model_len, "):
        LLM(tiny.folder(), swap_space=4)


def test_priority_is_one_number_or_one_each():
    llm = tiny.llm(scheduling_policy="priority", max_num_seqs=1)
    for priority in (3, [1, 2]):
        outputs = llm.generate([list(PROMPTS[0]), list(PROMPTS[1])], GREEDY, priority=priority)
        assert tiny.tokens(outputs) == [[tiny.greedy(PROMPTS[i], 12)] for i in (0, 1)]
    assert tiny.tokens(tiny.llm().generate([list(PROMPTS[0])], GREEDY, priority=0))
    with pytest.raises(ValueError, match="scheduling_policy is 'fcfs', which knows none"):
        tiny.llm().generate([list(PROMPTS[0])], GREEDY, priority=1)


def test_decoded_tokens_are_the_text_of_each_reported_token(llm):
    params = SamplingParams(temperature=0, max_tokens=4, logprobs=2, prompt_logprobs=1)
    [output] = llm.generate(HELLO, params)
    reports = [*output.outputs[0].logprobs, *output.prompt_logprobs[1:]]
    assert all(isinstance(one.decoded_token, str) for report in reports for one in report.values())
    told = [
        report[i].decoded_token
        for i, report in zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True)
    ]
    assert "".join(told) == HELLO
    ids = SamplingParams(temperature=0, max_tokens=2, logprobs=0, detokenize=False)
    assert {
        one.decoded_token
        for report in llm.generate(HELLO, ids)[0].outputs[0].logprobs
        for one in report.values()
    } == {None}
