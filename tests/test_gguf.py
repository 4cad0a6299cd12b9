"""A GGUF file through the front door: the same texts as from the folder that it was written from."""

from pathlib import Path

import pytest

from minillm import LLM, CheckpointError, SamplingParams
from minillm.cli import main
from tests.engine import tiny
from tests.model.gguf_files import tokenizer_metadata, write_gguf

GREEDY = SamplingParams(temperature=0, max_tokens=12)
PROMPT = "the quick brown fox"
MESSAGES = [{"role": "user", "content": "once upon a time"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = tokenizer_metadata(
        tiny.byte_level_tokenizer(),
        "gpt2",
        pre="gpt-2",
        bos_token_id=0,
        eos_token_id=0,
        eot_token_id=5,
        add_bos_token=True,
    )
    metadata = tokenizer | {"tokenizer.chat_template": tiny.TEMPLATE, "general.sampling.top_k": 7}
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny.reference(), metadata=metadata)


def test_texts_are_those_of_the_folder(model: Path) -> None:
    with LLM(model, max_num_seqs=2) as ours, LLM(tiny.folder(), max_num_seqs=2) as theirs:
        assert ours.model.config.eos_token_ids == theirs.model.config.eos_token_ids == tiny.EOS
        for call in ("generate", "chat"):
            asked = PROMPT if call == "generate" else MESSAGES
            one, other = (getattr(llm, call)(asked, GREEDY, use_tqdm=False)[0] for llm in (ours, theirs))
            assert one.prompt_token_ids == other.prompt_token_ids
            assert one.outputs[0].text == other.outputs[0].text != ""
        assert ours.get_default_sampling_params().top_k == 7


def test_a_name_in_text_and_the_folder_of_the_file(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = set()
    for name in (str(model), str(model.parent)):
        assert main(["generate", PROMPT, "--model", name, "--temperature", "0", "--max-tokens", "8"]) == 0
        printed.add(capsys.readouterr().out)
    assert len(printed) == 1


def test_the_environment_names_it(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINILLM_MODEL", str(model))
    assert main(["generate", "--chat", "once upon a time", "--max-tokens", "4", "--seed", "1"]) == 0
    assert "once upon" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["missing.gguf", "models/missing.gguf", "a/b/missing.GGUF"])
def test_a_file_that_is_not_there_is_no_hub_id(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"no model '{name}': it is not a folder, not a GGUF file"):
        LLM(name)


def test_another_file_is_refused_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", PROMPT, "--model", str(tiny.folder() / "model.safetensors")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "model.safetensors is not a GGUF file" in said
