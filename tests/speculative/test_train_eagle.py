"""Training a head: the mask of the training-time test is what the engine computes, and a trained head is accepted."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from minillm import LLM, SamplingParams
from minillm.cli import main
from minillm.speculative import eagle_checkpoint
from minillm.speculative.eagle_checkpoint import load_head, save_head
from minillm.speculative.train_eagle import (
    Reading,
    Training,
    acceptance,
    layers_to_read,
    loss_of,
    most_frequent,
    new_head,
    num_passes_at,
    own_texts,
    schedule,
    train,
    unroll,
)
from tests.speculative.test_eagle import eagle, texts_of, watch

VOCAB_SIZE = 40
SMALL = Training(
    draft_vocab_size=30,
    intermediate_size=48,
    num_texts=24,
    text_length=48,
    num_steps=60,
    num_windows=8,
    window=24,
    num_passes=3,
    learning_rate=0.01,
)


@cache
def folder():
    """A model whose next token depends on little more than the last one, so that a head can learn it in seconds."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config)
    for weight in (model.get_input_embeddings().weight, model.lm_head.weight):
        torch.nn.init.normal_(weight, std=0.5)
    path = Path(tempfile.mkdtemp(prefix="minillm-tiny-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    model.save_pretrained(path)
    return path


@cache
def shared():
    return LLM(folder(), max_num_seqs=24)


@cache
def texts():
    """Texts that the model wrote, sampled."""
    params = SamplingParams(max_tokens=47, ignore_eos=True)
    prompts = [[7 + i % 30] for i in range(SMALL.num_texts)]
    outputs = shared().generate(prompts, params)
    return [prompt + output.outputs[0].token_ids for prompt, output in zip(prompts, outputs, strict=True)]


@cache
def trained():
    losses = []
    head = train(shared().model, texts(), SMALL, lambda step, loss: losses.append(loss))
    return head, losses


def untrained():
    ids = most_frequent(texts(), SMALL.draft_vocab_size, VOCAB_SIZE)
    return new_head(shared().model, ids, SMALL)


def test_the_unrolled_passes_are_the_drafts_of_the_engine(tmp_path):
    """If the text goes on as the head drafts, pass j at position t is draft j of the chain from t."""
    save_head(untrained(), tmp_path / "head", {})
    llm = shared().variant(speculative_config=eagle(tmp_path / "head", 3))
    head = load_head(tmp_path / "head", llm.model)
    seen = watch(llm)
    llm.generate(
        [text[:8] for text in texts()[:3]], SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    )
    assert len(texts_of(seen)) > 15
    for tokens, drafts in texts_of(seen).items():
        chain = Reading.of(llm.model, torch.tensor([[*tokens, *drafts, 3]]), head.taps)
        with torch.no_grad():
            passes = [logits[0, len(tokens) - 2] for logits in unroll(head, chain, 3)]
        assert [int(head.target_ids[logits.argmax()]) for logits in passes][: len(drafts)] == drafts


def test_the_loss_falls_and_the_drafts_become_right():
    (head, losses), target, windows = trained(), shared().model, torch.tensor(texts())
    assert len(losses) == SMALL.num_steps
    with torch.no_grad():
        worse, better = (
            loss_of(one, target, Reading.of(target, windows, one.taps), 3, 1.0).item()
            for one in (untrained(), head)
        )
    assert better < worse - 1
    before, after = (acceptance(one, target, windows, 3) for one in (untrained(), head))
    assert after[0] > before[0] + 0.3
    assert after[0] > after[1] > after[2] > before[2], "a draft counts only after all drafts before it"


def test_the_engine_accepts_what_acceptance_says(tmp_path):
    head, _ = trained()
    save_head(head, tmp_path / "head", {"steps": 60})
    with LLM(folder(), speculative_config=eagle(tmp_path / "head", 3)) as llm:
        prompts, params = [text[:8] for text in texts()], SamplingParams(max_tokens=40, ignore_eos=True)
        outputs = llm.generate(prompts, params)
    written = [prompt + output.outputs[0].token_ids for prompt, output in zip(prompts, outputs, strict=True)]
    drafted = sum(output.metrics.num_draft_tokens for output in outputs)
    accepted = sum(output.metrics.num_accepted_tokens for output in outputs)
    shares = acceptance(head, shared().model, torch.tensor(written), 3)
    assert accepted / drafted == pytest.approx(sum(shares) / 3, abs=0.12)
    assert accepted / drafted > 0.2


def test_the_same_seed_gives_the_same_head():
    first, second, other = (
        train(shared().model, texts(), Training(**{**vars_of(SMALL), "num_steps": 3, "seed": seed}))
        for seed in (1, 1, 2)
    )
    same = [torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True)]
    assert all(same)
    assert not torch.equal(tensors(first)[0], tensors(other)[0])


def vars_of(training):
    return {name: getattr(training, name) for name in training.__dataclass_fields__}


def tensors(head):
    return [head.fc.weight, head.decoder.weights.blocks[0].qkv.weight]


def test_the_draft_vocabulary_has_the_most_frequent_tokens_in_order():
    assert most_frequent([[9, 9, 4, 4, 4, 8], [7]], 3, 20).tolist() == [4, 7, 9]
    assert most_frequent([[9]], 3, 20).tolist() == [0, 1, 9]


@pytest.mark.parametrize(
    ("num_layers", "taps"), [(2, (0, 0, 0)), (6, (0, 2, 4)), (8, (1, 3, 4)), (32, (1, 15, 28))]
)
def test_a_head_reads_an_early_a_middle_and_a_late_layer(num_layers, taps):
    assert layers_to_read(num_layers) == taps


def test_the_learning_rate_rises_stays_and_falls():
    rates = [schedule(done) for done in (0, 0.05, 0.3, 0.5, 0.75, 1)]
    assert rates == pytest.approx([0.02, 1, 1, 1, 0.52, 0.02])


def test_passes_are_added_in_the_second_half():
    assert [num_passes_at(done, 4) for done in (0, 0.5, 0.6, 0.63, 0.76, 0.9, 0.999)] == [1, 1, 1, 2, 3, 4, 4]


def test_texts_differ_and_half_of_them_are_greedy():
    llm = shared()
    sampled, greedy = own_texts(
        lambda prompts, params: [o.outputs[0].token_ids for o in llm.generate(prompts, params)], 5, SMALL
    )
    assert len(sampled) == len(greedy) == 12
    assert all(len(text) == 48 and text[0] == 5 for text in sampled + greedy)
    assert len({tuple(text) for text in sampled}) > 6
    for text, other in zip(sampled, greedy, strict=True):
        assert other[:25] == text[:25]
        [wanted] = llm.generate([other[:25]], SamplingParams(temperature=0, max_tokens=4, ignore_eos=True))
        assert wanted.outputs[0].token_ids == other[25:29]


def test_the_command_writes_a_head_that_loads(tmp_path, capsys):
    out = tmp_path / "head"
    arguments = ["train-eagle", str(folder()), "-o", str(out), "--steps", "4", "--texts", "4"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "held-out sampled text: drafts accepted 0." in printed and "tokens per step" in printed
    config = json.loads((out / "config.json").read_text())
    assert config["eagle_config"]["eagle_aux_hidden_state_layer_ids"] == [1, 2, 2]
    assert json.loads((out / "training.json").read_text())["num_steps"] == 4
    with safe_open(out / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {  # noqa: SIM118
            "torch.bfloat16", "torch.int64", "torch.bool",
        }  # fmt: skip
    with LLM(folder(), speculative_config=eagle(out)) as llm:
        assert llm.generate([[7, 8]], SamplingParams(max_tokens=4, ignore_eos=True))[0].finished
    assert main(arguments) == 2
    assert "exists: choose a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("--steps", "0"), ("--texts", "3")])
def test_the_command_refuses_numbers_that_cannot_be(tmp_path, capsys, name, value):
    assert main(["train-eagle", str(folder()), "-o", str(tmp_path / "head"), name, value]) == 2
    assert "give at least" in capsys.readouterr().err
    assert not (tmp_path / "head").exists()


def test_a_run_that_ends_early_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(eagle_checkpoint, "save_tensors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_head(untrained(), tmp_path / "head", {})
    assert list(tmp_path.iterdir()) == []
