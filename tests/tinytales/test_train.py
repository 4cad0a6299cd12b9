"""A training run that is stopped goes on as if it had not been."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.tinytales import train


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(train, "TOKENS_PER_STEP", 256)
    monkeypatch.setattr(train, "CONTEXT", 64)
    rng = np.random.default_rng(0)
    rng.integers(0, 4096, 5000).astype(np.uint16).tofile(tmp_path / "train.bin")
    rng.integers(0, 4096, 500).astype(np.uint16).tofile(tmp_path / "heldout.bin")
    return tmp_path


def weights(run: train.Run) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def run_of(folder: Path) -> train.Run:
    run = train.Run("draft", folder, seed=3, device="cpu")
    run.resume()
    return run


def test_a_stopped_run_goes_on_from_its_state(folder: Path) -> None:
    whole = run_of(folder)
    assert train.train(whole, 4 * 256)

    first = run_of(folder)
    assert not train.train(first, 4 * 256, minutes=0), "one step, then the time is over"
    assert first.seen == 256
    first.checkpoint()
    again = run_of(folder)
    assert again.seen == 256
    assert train.train(again, 4 * 256)
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(whole).items())


def test_a_state_that_was_cut_short_does_not_replace_the_last_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(folder)
    run.seen = 512
    run.checkpoint()

    def killed(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    run.seen = 1024
    with pytest.raises(KeyboardInterrupt):
        run.checkpoint()
    assert run_of(folder).seen == 512


def test_a_lesson_is_lists_of_words_that_are_written_four_times() -> None:
    words = np.arange(50, 90)
    ids = train.lesson(words, np.random.default_rng(1), 400)
    assert len(ids) == 400 and np.isin(ids, words).all()
    length = next(n for n in range(3, 13) if ids[n] == ids[0])
    first = ids[:length]
    assert len(set(first)) == length
    assert (ids[: 4 * length].reshape(4, length) == first).all()


def test_lessons_take_the_place_of_the_last_rows() -> None:
    stories = torch.zeros(8, 64, dtype=torch.long)
    inputs, targets = train.put_lessons(stories, stories, np.arange(50, 90), seed=2, share=0.25)
    assert (inputs[:6] == 0).all() and (targets[:6] == 0).all()
    assert (inputs[6:] >= 50).all() and torch.equal(inputs[6:, 1:], targets[6:, :-1])


def test_less_than_a_row_is_a_row_in_some_of_the_steps() -> None:
    stories = torch.zeros(4, 64, dtype=torch.long)
    steps = [train.put_lessons(stories, stories, np.arange(50, 90), seed, 0.125)[0] for seed in range(400)]
    replaced = sum(bool((inputs[3] >= 50).all()) for inputs in steps)
    assert 150 < replaced < 250, "200 are expected, with a standard deviation of 10"
    assert all((inputs[:3] == 0).all() for inputs in steps)


def test_names_are_whole_capitalised_words(folder: Path) -> None:
    vocab = {"Ġ": 0, "ĠAnna": 7, "Anna": 8, "Ġthe": 9, "ĠTom": 3, "ĠTom's": 4, "ĠMcX": 5}
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": vocab}}), encoding="utf-8"
    )
    assert train.capitalised(folder).tolist() == [3, 7]
