"""Test the bundled models: their size and files, equality with `transformers`, and the effect of training."""

import json
import re
from pathlib import Path

import pytest
import torch

from minillm import LLM, SamplingParams, bundled_models, perplexity
from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import NoCache
from minillm.llm import BUNDLED

MODELS = ["tinytales", "tinytales-draft"]
HEAD = "tinytales-eagle3"


def heldout(kind: str) -> str:
    return (BUNDLED / "heldout" / f"{kind}.txt").read_text(encoding="utf-8")


def test_all_are_there_and_small() -> None:
    assert bundled_models() == [*MODELS, HEAD]
    sizes = [(BUNDLED / name / "model.safetensors").stat().st_size for name in (*MODELS, HEAD)]
    assert sum(sizes) <= 20e6 and sizes[-1] <= 4e6


@pytest.mark.parametrize("name", MODELS)
def test_the_card_says_what_is_in_the_folder(name: str) -> None:
    card = (BUNDLED / name / "README.md").read_text(encoding="utf-8")
    figures = json.loads((BUNDLED / "evaluation.json").read_text())
    with LLM(name, max_num_seqs=1) as llm:
        assert f"{llm.model.config.num_parameters:,}" in card
    for kind in "stories", "tales":
        for value in figures[kind]["perplexity"].values():
            assert f"{value:.2f}" in card
    assert "license: mit" in card


def test_heldout_texts_are_small_and_apart() -> None:
    texts = {file.stem: file.read_text(encoding="utf-8") for file in (BUNDLED / "heldout").glob("*.txt")}
    assert set(texts) == {"stories", "tales", "calibration"}
    assert all(len(text.encode()) <= 100_000 for text in texts.values())
    documents = [set(text.strip().split("\n\n\n")) for text in texts.values()]
    assert sum(map(len, documents)) == len(set().union(*documents)), "a document is in two splits"


def test_the_draft_is_worth_its_time() -> None:
    """Later chapters reckon with these: measured when the weights were made, on the machine that the file names."""
    figures = json.loads((BUNDLED / "evaluation.json").read_text())
    assert 0.78 <= figures["stories"]["draft acceptance, greedy"] <= 0.85
    assert figures["draft step / target step"] <= 0.18


def test_the_head_is_accepted_as_its_card_says() -> None:
    """On six held-out stories, of the 24 that the card is about."""
    card = (BUNDLED / HEAD / "README.md").read_text(encoding="utf-8")
    [stated] = re.findall(r"\| stories, greedy \| ([0-9.]+) \|", card)
    stories = [story for story in heldout("stories").strip().split("\n\n\n") if len(story) > 300][:6]
    config = {"method": "eagle3", "model": HEAD, "num_speculative_tokens": 4}
    with LLM("tinytales", max_model_len=256, speculative_config=config) as llm:
        assert llm.tokenizer is not None
        prompts = [llm.tokenizer.encode(story)[:48] for story in stories]
        outputs = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=96, ignore_eos=True))
    accepted = sum(output.metrics.num_accepted_tokens for output in outputs)
    assert 6 * 96 / (6 * 96 - accepted) == pytest.approx(float(stated), rel=0.12)


def test_heldout_text_is_long_enough() -> None:
    assert sum(len(heldout(kind).encode()) for kind in ("stories", "tales")) >= 150_000


@pytest.mark.parametrize("name", MODELS)
def test_transformers_loads_it_and_agrees(name: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(BUNDLED / name, dtype=torch.float32).eval()
    with LLM(name, max_num_seqs=1) as llm:
        assert llm.tokenizer is not None
        text = heldout("stories")[:2000]
        ids = llm.tokenizer.encode(text)
        assert AutoTokenizer.from_pretrained(BUNDLED / name)(text)["input_ids"] == ids
        ours = llm.model.logits(
            llm.model(Batch.of([Chunk(ids, 0, [0])], 1024), NoCache(llm.model.config, 1024))
        )
        with torch.no_grad():
            error = (theirs(torch.tensor([ids])).logits[0] - ours).abs().max().item()
        assert error <= 1e-4
        prompt = ids[:20]
        greedy = llm.generate([prompt], SamplingParams(temperature=0, max_tokens=64, ignore_eos=True))[0]
        expected = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=64,
            min_new_tokens=64,
            do_sample=False,
            pad_token_id=0,
        )
        # `min_new_tokens` masks the end token on their side; compare up to where ours would have ended.
        end = greedy.outputs[0].token_ids.index(0) if 0 in greedy.outputs[0].token_ids else 64
        assert greedy.outputs[0].token_ids[:end] == expected[0, len(prompt) :].tolist()[:end]


@pytest.mark.parametrize("kind", ["stories", "tales"])
@pytest.mark.slow
def test_the_target_beats_the_draft_and_both_the_trigram(kind: str) -> None:
    figures = json.loads((BUNDLED / "evaluation.json").read_text())[kind]["perplexity"]
    text = heldout(kind)[:24_000]
    found = {}
    for name in MODELS:
        with LLM(name) as llm:
            found[name] = perplexity(llm, text)
    assert found["tinytales"] * 1.1 < found["tinytales-draft"] < figures["trigram"]
    assert found["tinytales"] > 1.4, "text this predictable would hide every loss of precision"


@pytest.mark.slow
def test_the_recorded_perplexity_is_what_is_measured() -> None:
    recorded = json.loads((BUNDLED / "evaluation.json").read_text())["tales"]["perplexity"]["draft"]
    with LLM("tinytales-draft") as llm:
        assert perplexity(llm, heldout("tales")) == pytest.approx(recorded, rel=1e-3)


def share_of_known_words(text: str) -> float:
    vocabulary = set(re.findall("[a-z]+", (heldout("stories") + heldout("calibration")).lower()))
    words = re.findall("[a-z]+", text.lower())
    return sum(word in vocabulary for word in words) / len(words)


def test_stories_read_as_sentences() -> None:
    params = SamplingParams(max_tokens=150, temperature=0.7, seed=5)
    with LLM("tinytales") as llm:
        for output in llm.generate(["Once upon a time"] * 8, params):
            assert share_of_known_words(output.outputs[0].text) > 0.85


def test_asked_for_a_story_it_tells_one() -> None:
    params = SamplingParams(max_tokens=120, temperature=0)
    with LLM("tinytales") as llm:
        talks = [
            [{"role": "user", "content": f"Tell me a story about {name}."}] for name in ("Hetty", "Bruno")
        ]
        for answer in llm.chat(talks, params):
            assert len(answer.outputs[0].text) > 200
            assert share_of_known_words(answer.outputs[0].text) > 0.85


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_transformers_generates_with_its_cache(name: str, file: str) -> None:
    """Or every comparison with it would be won against a naive loop."""
    assert json.loads((BUNDLED / name / file).read_text())["use_cache"] is True


def test_nothing_but_safetensors_json_and_text_ships() -> None:
    endings = {file.suffix for file in Path(BUNDLED).rglob("*") if file.is_file()}
    assert endings <= {".safetensors", ".json", ".md", ".txt"}
