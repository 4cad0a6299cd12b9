"""The README's examples run, print what the README shows, and its commands exist."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from minillm.cli import main
from tools import readme

ROOT = Path(__file__).parents[1]
TEXT = readme.README.read_text(encoding="utf-8")


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="the outputs were made on a CPU, and a GPU rounds differently"
)
def test_the_outputs_are_current() -> None:
    assert readme.with_outputs(TEXT) == TEXT, "make readme"


def test_every_example_shows_its_output() -> None:
    shown = [kind for kind, code, output in readme._EXAMPLE.findall(TEXT) if output]
    assert shown == ["sh", "sh", "python", "python", "python", "python"]


def test_an_old_output_is_replaced() -> None:
    text = "```python\nx = 2\n```\n\nThen:\n\n```python\nprint(x)\n```\n\n```text\nold\n```\n\n```text\nkept\n```\n"
    assert readme.with_outputs(text) == text.replace("old", "2")


def test_an_example_with_the_real_model_waits_for_it() -> None:
    text = "```sh\nminillm generate hi --model .real/none\n```\n\n```text\nkept\n```\n"
    assert readme.with_outputs(text) == text
    with pytest.raises(RuntimeError, match=r"--model \.real/none ended with status 2"):
        readme.with_outputs(text, real=True)


def test_an_example_that_fails_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="minillm generate ended with status 2"):
        readme.with_outputs("```sh\nminillm generate  # without a prompt\n```\n")


def test_a_moving_picture_comes_before_the_first_table() -> None:
    pictures = list(re.finditer(r"!\[.{20,}\]\((.*)\)", TEXT))
    assert pictures[0].start() < TEXT.index("\n|")
    path = ROOT / pictures[0][1]
    assert path.stat().st_size <= 1_000_000
    with Image.open(path) as picture:
        assert getattr(picture, "n_frames", 1) > 20
    assert all((ROOT / picture[1]).exists() for picture in pictures)


def test_its_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words[0] for words in readme.commands(TEXT, "make")} | set(re.findall(r"`make ([a-z]+)", TEXT))
    assert {"lab", "tour", "test"} <= named <= targets


def test_its_commands_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that run no model are only asked for their help: what they do is tested elsewhere."""
    named = {words[0] for words in readme.commands(TEXT, "minillm")} | set(
        re.findall(r"`minillm ([a-z]+)", TEXT)
    )
    assert {"generate", "start", "check", "progress", "reset"} <= named
    for name in named:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
