"""A training run that is stopped goes on as if it had not been."""

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
