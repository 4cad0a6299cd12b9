"""Models from the Hugging Face hub: the real code path, over a hub cache that the test fills itself."""

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from minillm import LLM, CheckpointError, SamplingParams
from minillm.llm import BUNDLED, model_folder

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline hub cache that holds `someone/storyteller`."""
    repository = tmp_path / "models--someone--storyteller"
    shutil.copytree(BUNDLED / "tinytales", repository / "snapshots" / REVISION)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_cached_model_runs_without_a_network(hub: Path) -> None:
    params = SamplingParams(max_tokens=8, temperature=0)
    with LLM("someone/storyteller", max_num_seqs=1) as ours, LLM("tinytales", max_num_seqs=1) as bundled:
        texts = [llm.generate("Once upon a time", params)[0].outputs[0].text for llm in (ours, bundled)]
    assert texts[0] == texts[1] != ""


def test_only_weights_that_cannot_run_code_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(BUNDLED / "tinytales")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert model_folder("someone/storyteller") == BUNDLED / "tinytales"
    assert asked["name"] == "someone/storyteller"
    assert not any(pattern.endswith((".bin", ".pt", ".pth", ".py")) for pattern in asked["allow_patterns"])  # type: ignore[attr-defined]


def test_offline_and_not_cached_says_what_to_do(hub: Path) -> None:
    with pytest.raises(CheckpointError, match=r"someone/novelist.*not in the local cache.*tinytales"):
        LLM("someone/novelist")


@pytest.mark.parametrize("name", ["tinytails", "/no/such/folder", "a/b/c", "./models"])
def test_what_is_no_model_names_the_bundled_ones(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"no model .*tinytales"):
        LLM(name)
