"""Predictions are kept, whatever else is in their file."""

import json
from pathlib import Path

import pytest

pytest.importorskip("ipywidgets", reason="ipywidgets is part of the course extra")

from minillm.course import predict as module
from minillm.course.predict import Prediction, predictions, reveal

ONE = Prediction("How long?", "ms", 3.0, "2026-01-01")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINILLM_DATA", str(tmp_path))
    return tmp_path / "predictions.json"


def test_a_prediction_is_kept_and_revealed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predictions() == {}
    assert module._store("01.a", ONE) == "Kept. Now measure."
    assert predictions() == {"01.a": ONE}
    reveal("01.a", 6)
    assert "measured 6 ms: off by a factor of 2.0" in capsys.readouterr().out
    assert predictions()["01.a"].measured == 6.0


def test_fields_of_a_newer_version_are_no_damage(file: Path) -> None:
    module._store("01.a", ONE)
    file.write_text(json.dumps({"01.a": json.loads(file.read_text())["01.a"] | {"new": 1}}))
    module._store("01.b", ONE)
    assert predictions() == {"01.a": ONE, "01.b": ONE}
    assert json.loads(file.read_text())["01.a"]["new"] == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"01.c": 3}', '{"01.c": {"predicted": "x"}}'])
def test_a_damaged_file_is_kept_aside(file: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(text)
    assert predictions() == {} and "cannot all be read" in capsys.readouterr().out
    module._store("01.a", ONE)
    assert predictions() == {"01.a": ONE}
    assert file.with_name("predictions.damaged-1.json").read_text() == text


def test_a_file_that_cannot_be_read_just_now_stays(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module._store("01.a", ONE)

    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(module.store, "read", fail)
        assert "cannot be kept beyond this page" in module._store("01.b", ONE)
    assert predictions() == {"01.a": ONE}
