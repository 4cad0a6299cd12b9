"""The marks last, only rise, and survive damage; where they cannot be kept, the check goes on and says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minillm import store
from minillm.course import hint, progress

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(progress, "_unsaved", {})
    monkeypatch.setenv("MINILLM_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_the_best_mark_stays_with_its_date(folder: Path) -> None:
    assert progress.record("01.1", 3, 4) == (3, "")
    assert progress.record("01.1", 1, 4) == (3, "")
    assert progress.record("02.1", 0, 2) == (0, "")
    content = json.loads((folder / "progress.json").read_text())
    assert content["exercises"]["01.1"]["points"] == 3 and len(content["exercises"]["01.1"]["date"]) == 10
    assert progress.record("01.1", 4, 4) == (4, "")
    assert [path.name for path in folder.iterdir()] == ["progress.json"]


def test_an_exercise_that_shrank_gives_no_more_than_its_points() -> None:
    progress.record("01.1", 9, 9)
    assert progress.record("01.1", 2, 4) == (4, "")


def test_fields_of_a_newer_version_stay(folder: Path) -> None:
    progress.record("01.1", 3, 4)
    file = folder / "progress.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"predictions": {"01": 7}}))
    progress.record("01.1", 4, 4)
    assert json.loads(file.read_text())["predictions"] == {"01": 7}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"exercises": 3}',
        '{"exercises": {"01.1": 3}}',
        '{"exercises": {"01.1": {"x": 1}}}',
        "\0",
    ],
)
def test_a_damaged_file_is_set_aside(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "progress.json").write_text(text)
    (folder / "progress.damaged-1.json").write_text("an older one")
    best, notice = progress.record("01.1", 2, 4)
    assert best == 2 and "progress.damaged-2.json" in notice and "damaged" in notice
    assert (folder / "progress.damaged-2.json").read_text() == text
    assert (folder / "progress.damaged-1.json").read_text() == "an older one"
    assert progress.record("01.1", 1, 4) == (2, "")


@pytest.mark.parametrize(
    "entry",
    [3, None, {"points": "4"}, {"points": None}, {"points": -1}, {"points": 1, "date": 5}, {"hints": 1}],
)
def test_a_damaged_mark_costs_no_other(folder: Path, entry: object) -> None:
    folder.mkdir()
    text = json.dumps({"exercises": {"01.2": entry, "02.1": {"points": 5, "date": "2026-01-01", "of": 6}}})
    (folder / "progress.json").write_text(text)
    assert progress.load().marks == {"02.1": progress.Mark(5, "2026-01-01")}
    assert "damaged (01.2: " in progress.load().notice
    assert "damaged (01.2: " in progress.record("01.1", 2, 4)[1]
    assert (folder / "progress.damaged-1.json").read_text() == text
    content = json.loads((folder / "progress.json").read_text())
    assert content["exercises"]["02.1"] == {"points": 5, "date": "2026-01-01", "hints": 0, "of": 6}
    assert progress.record("02.1", 1, 6) == (5, "")


def test_marks_that_cannot_be_read_just_now_are_not_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress.record("01.1", 4, 4)
    before = (folder / "progress.json").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(store, "read", raise_os_error)
        best, notice = progress.record("01.2", 1, 3)
        assert best == 1 and "cannot be kept after this session: [Errno 5]" in notice
        assert (folder / "progress.json").read_text() == before
    assert progress.record("01.2", 2, 3) == (2, "")
    assert {key: mark.points for key, mark in progress.load().marks.items()} == {"01.1": 4, "01.2": 2}


def raise_os_error(*_: object) -> None:
    raise OSError(5, "Input/output error")


def test_a_full_disk_leaves_the_file_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress.record("01.1", 4, 4)
    before = (folder / "progress.json").read_text()
    monkeypatch.setattr(store.os, "fsync", raise_os_error)
    assert "cannot be kept after this session" in progress.record("01.2", 1, 3)[1]
    assert [path.name for path in folder.iterdir()] == ["progress.json"]
    assert (folder / "progress.json").read_text() == before


def test_two_processes_lose_no_mark(folder: Path) -> None:
    """A notebook's kernel and `minillm check`, each of which reads, changes and writes the file."""
    code = (
        "import sys, types; package = types.ModuleType('minillm'); package.__path__ = ['minillm']\n"
        "sys.modules['minillm'] = package  # without torch, which takes seconds\n"
        "from minillm.course import progress\n"
        "for i in range(60): progress.record(f'{sys.argv[1]}.{i}', 5, 5)"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, who], cwd=ROOT) for who in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    assert len(progress.load().marks) == 120


def test_bytes_that_are_no_text_are_set_aside_too(folder: Path) -> None:
    folder.mkdir()
    (folder / "progress.json").write_bytes(b"\xff\xfe\x00")
    assert "damaged" in progress.record("01.1", 2, 4)[1]


def test_a_folder_that_cannot_be_written_costs_only_the_memory(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write_text("a file where the folder should be")
    best, notice = progress.record("01.1", 2, 4)
    assert best == 2 and "cannot be kept after this session" in notice and "MINILLM_DATA" in notice
    hint("01.1")
    hint("01.1")
    out = capsys.readouterr().out
    assert "The invariant" in out, "the second call goes one further all the same"
    folder.unlink()
    assert progress.record("01.1", 1, 4) == (2, ""), "and what was earned is kept once it can be"


def test_each_hint_goes_one_further(capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for _ in range(4):
        hint("01.1")
        said.append(capsys.readouterr().out)
    assert said[0].startswith("A nudge: ") and said[0].endswith(
        "\n(hint 1 of 3: call it again for the next one)\n"
    )
    assert "The invariant" not in said[0]
    assert "The invariant: " in said[1] and "Nearly the code" not in said[1]
    assert "Nearly the code: " in said[2] and said[2].endswith("\n(hint 3 of 3: this is the last hint)\n")
    assert said[3] == said[2]
    assert progress.load().marks["01.1"].hints == 3


def test_an_unknown_exercise_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no exercise '77.7' in this minillm. It has 01.1"):
        hint("77.7")


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {"MINILLM_DATA": "/d"}, "/d"),
        ("linux", {"XDG_DATA_HOME": "/x"}, "/x/minillm"),
        ("linux", {}, "/home/a/.local/share/minillm"),
        ("darwin", {}, "/home/a/Library/Application Support/minillm"),
        ("win32", {"APPDATA": "/r"}, "/r/minillm"),
    ],
)
def test_the_data_folder(
    monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], folder: str
) -> None:
    for name in ("MINILLM_DATA", "XDG_DATA_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/a", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(progress.sys, "platform", platform)
    assert progress.data_dir() == Path(folder)
    assert os.sep == "/"
