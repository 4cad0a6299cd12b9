"""`minillm start | check | reset | progress` on a course folder of its own."""

import argparse
import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from minillm.course import commands, lab, progress, workbook
from minillm.course import notebook as nb
from minillm.course.notebook import NotebookError

ROOT = Path(__file__).parents[2]
NAME = "01_two_phases.ipynb"
CHAPTER = "03_a_chapter.ipynb"


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "course"
    for folder in ("notebooks", "exercises"):
        (root / folder).mkdir(parents=True)
    # The course may have more chapters; these tests are about one.
    shutil.copyfile(ROOT / "exercises" / NAME, root / "exercises" / NAME)
    write_chapter(root, "# A chapter", "1 + 1")
    monkeypatch.chdir(root / "notebooks")  # anywhere inside will do
    monkeypatch.setenv("MINILLM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(progress, "_unsaved", {})
    return root


def write_chapter(root: Path, prose: str, code: str) -> None:
    """Ship a version of a chapter, as it would come with git."""
    cells = [
        {"cell_type": "markdown", "id": "prose", "metadata": {}, "source": prose},
        {"cell_type": "code", "id": "code", "metadata": {}, "source": code, "outputs": []},
    ]
    path = root / "notebooks" / CHAPTER
    nb.write(path, {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def minillm(*words: str) -> None:
    parser = argparse.ArgumentParser()
    commands.add_commands(parser.add_subparsers(dest="command", required=True))
    args = parser.parse_args(words)
    args.run(args)


def answer(path: Path, text: str) -> None:
    """Edit the first exercise as a learner does: in JupyterLab, which changes metadata as well."""
    notebook = nb.read(path)
    cell = next(cell for cell in notebook["cells"] if cell["id"] == "causal-attention")
    cell["source"], cell["metadata"]["execution"] = text, {"iopub.status.idle": "2026-01-01"}
    notebook["metadata"]["widgets"] = {}
    nb.write(path, notebook)


def new_version(course: Path) -> None:
    notebook = nb.read(course / "exercises" / NAME)
    notebook["cells"][1]["source"] = "# newer\n" + nb.source(notebook["cells"][1])
    nb.stamp(notebook)
    nb.write(course / "exercises" / NAME, notebook)


def test_start_copies_once_and_leaves_what_is_there(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    minillm("start", "1", "--no-open")
    own = course / "work" / NAME
    assert own.read_bytes() == (course / "exercises" / NAME).read_bytes()
    answer(own, "mine = 1")
    before = own.read_bytes()
    minillm("start", "01", "--no-open")
    new_version(course)
    minillm("start", "01", "--no-open")
    assert own.read_bytes() == before
    out = capsys.readouterr().out
    assert f"copied to {own}" in out and "`minillm reset 01` takes it" in out
    assert sorted(path.name for path in own.parent.iterdir()) == [NAME]


def test_start_renews_a_copy_whose_code_was_not_touched(course: Path) -> None:
    minillm("start", "01", "--no-open")
    own = course / "work" / NAME
    notebook = nb.read(own)
    notebook["cells"][0]["source"] = "notes of mine in the prose only"
    notebook["cells"][1]["outputs"] = [{"name": "stdout", "output_type": "stream", "text": "run"}]
    nb.write(own, notebook)
    new_version(course)
    before = own.read_text()
    minillm("start", "01", "--no-open")
    assert own.read_bytes() == (course / "exercises" / NAME).read_bytes()
    assert own.with_name("01_two_phases.backup-1.ipynb").read_text() == before, "the notes are kept"


class Became(BaseException):
    """Raised where the process would turn into JupyterLab; the arguments are (its command, its environment)."""


@pytest.fixture
def no_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    def become(path: str, command: list[str], env: dict[str, str]) -> None:
        raise Became(command, env)

    monkeypatch.setattr(lab.os, "execve", become)
    monkeypatch.setattr(lab, "running", lambda path: None)


@pytest.mark.parametrize(("user", "root"), [(0, True), (1000, False)])
def test_start_opens_it(
    course: Path,
    no_exec: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: int,
    root: bool,
) -> None:
    monkeypatch.setattr(lab.os, "geteuid", lambda: user)
    with pytest.raises(Became) as became:
        minillm("start", "01")
    command, env = became.value.args
    assert command[1:3] == ["-m", "jupyterlab"] and ("--allow-root" in command) is root
    assert f"--ServerApp.root_dir={course}" in command
    assert f"--LabApp.default_url=/lab/tree/work/{NAME}" in command
    assert env["PATH"].startswith(str(Path(sys.executable).parent)), "its terminals find minillm"
    out = capsys.readouterr().out
    assert f"Opening work/{NAME} in JupyterLab, in your browser." in out and "begins with http://" in out
    monkeypatch.setattr(lab, "installed", lambda: False)
    minillm("start", "01")
    assert "JupyterLab is not installed here" in capsys.readouterr().out


def test_start_opens_no_second_jupyterlab(
    course: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jupyter_server import serverapp

    def servers(*folders: Path) -> None:
        found = [{"root_dir": str(f), "url": "http://localhost:1/", "token": "abc"} for f in folders]
        monkeypatch.setattr(serverapp, "list_running_servers", lambda: found)

    def become(*_: object) -> None:
        raise Became

    monkeypatch.setattr(lab.os, "execve", become)
    servers(course / "notebooks")
    for words in (("start", "01"), ("lab",)):
        with pytest.raises(Became):
            minillm(*words)
    servers(course / "notebooks", course)
    minillm("start", "01")
    out = capsys.readouterr().out
    assert f"already running: open work/{NAME} in it" in out
    assert f"http://localhost:1/lab/tree/work/{NAME}?token=abc" in out
    minillm("lab")
    assert "http://localhost:1/lab/tree/work/chapters/" in capsys.readouterr().out
    with pytest.raises(Became):
        minillm("lab", "--", "--port=9000")  # another one was asked for
    servers(course.parent)
    with pytest.raises(Became):
        minillm("lab")  # a server over a larger folder is not the course's


def test_lab_opens_the_first_chapter_on_copies(course: Path, no_exec: None, tmp_path: Path) -> None:
    with pytest.raises(Became) as became:
        minillm("lab", "--", "--no-browser")
    command, _ = became.value.args
    assert f"--LabApp.default_url=/lab/tree/work/chapters/{CHAPTER}" in command
    assert command[-1] == "--no-browser"
    assert (course / "work" / "chapters" / CHAPTER).exists() and (course / "work" / NAME).exists()


@pytest.mark.parametrize(
    ("model", "absolute"), [("../own/model.gguf", True), ("org/model", False), (None, False)]
)
def test_lab_makes_the_path_of_a_model_absolute(
    course: Path, no_exec: None, monkeypatch: pytest.MonkeyPatch, model: str | None, absolute: bool
) -> None:
    monkeypatch.delenv("MINILLM_MODEL", raising=False)
    if model is not None:
        monkeypatch.setenv("MINILLM_MODEL", model)
    (course / "own").mkdir()
    (course / "own" / "model.gguf").touch()
    with pytest.raises(Became) as became:
        minillm("lab")
    expected = str(course / "own" / "model.gguf") if absolute else model
    assert became.value.args[1].get("MINILLM_MODEL") == expected


def test_lab_without_jupyterlab_says_what_to_install(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "installed", lambda: False)
    with pytest.raises(NotebookError, match="JupyterLab is not installed here"):
        minillm("lab")


def test_reset_keeps_every_earlier_copy(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    minillm("reset", "01")
    own = course / "work" / NAME
    for text in ("first = 1", "second = 2"):
        answer(own, text)
        minillm("reset", "01")
    assert own.read_bytes() == (course / "exercises" / NAME).read_bytes()
    kept = [own.with_name(f"01_two_phases.backup-{n}.ipynb") for n in (1, 2)]
    assert ["first = 1" in kept[0].read_text(), "second = 2" in kept[1].read_text()] == [True, True]
    assert "backup-2.ipynb. Your marks stay" in capsys.readouterr().out


def test_a_full_disk_costs_no_notebook(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minillm("start", "01", "--no-open")
    own = course / "work" / NAME
    answer(own, "mine = 1")
    before = own.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for module, name in ((workbook.store.shutil, "copyfile"), (workbook.store.os, "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(NotebookError, match="No space left"):
                minillm("reset", "01")
        assert own.read_bytes() == before


def test_check_marks_the_notebook_without_running_it(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotebookError, match="you have not begun chapter 01: `minillm start 01`"):
        minillm("check", "01")
    minillm("start", "01", "--no-open")
    with pytest.raises(SystemExit) as stop:
        minillm("check", "01")
    assert stop.value.code == 1 and "is not written yet" in capsys.readouterr().out
    # A cell that would never end, and one that is not Python, are no obstacle.
    notebook = nb.read(course / "work" / NAME)
    notebook["cells"][2:2] = [
        {"cell_type": "code", "source": text, "metadata": {}, "outputs": [], "execution_count": None}
        for text in ("while True: pass", "what is this", "%time 1 + 1")
    ]
    solution = nb.read(ROOT / "solutions" / NAME)
    (cell,) = [cell for cell in solution["cells"] if cell["id"] == "causal-attention"]
    notebook["cells"].append(cell)
    mine = course / "mine.ipynb"
    nb.write(mine, notebook)
    with pytest.raises(SystemExit) if len(progress_ids()) > 1 else nothing():
        minillm("check", "01", "--notebook", str(mine))
    assert "01.1 Causal attention: 4 of 4 points" in capsys.readouterr().out
    minillm("progress")
    out = capsys.readouterr().out
    assert "✓ 01.1  Causal attention" in out and " 4/4 " in out


def progress_ids() -> list[str]:
    return [exercise.id for exercise in commands.chapter_exercises("01")]


class nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def test_a_terminal_without_the_signs_shows_plain_ones(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress.record("01.1", 4, 4)
    screen = io.BytesIO()
    terminal = io.TextIOWrapper(screen, encoding="cp1252", write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", terminal)
        minillm("progress")
    assert screen.getvalue().startswith(b"+ 01.1  Causal attention")


def test_progress_says_what_comes_next(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    minillm("progress")
    assert "Next: 01.1 Causal attention, about 15 minutes (minillm start 01)" in capsys.readouterr().out
    for chapter in commands.chapters():
        for exercise in commands.chapter_exercises(chapter):
            progress.record(exercise.id, exercise.points, exercise.points)
    minillm("progress")
    assert "All exercises are done." in capsys.readouterr().out


@pytest.mark.parametrize("word", ["xx", "", "3.1", "-1", "²"])
def test_a_chapter_that_is_no_number_is_refused(
    course: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        minillm("start", word)


def test_a_chapter_without_exercises_is_named(course: Path) -> None:
    with pytest.raises(
        NotebookError, match=r"chapter 99 has no exercises in .*\. These chapters have some: 01"
    ):
        minillm("start", "99")
    with pytest.raises(ValueError, match="chapter 99 has no exercises"):
        minillm("check", "99")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"nbformat": 3, "cells": []}', '{"nbformat": 4, "cells": [1]}']
)
def test_a_damaged_notebook_is_named_and_left(course: Path, text: str) -> None:
    own = course / "work" / NAME
    own.parent.mkdir()
    own.write_text(text)
    for command in (("start", "01", "--no-open"), ("check", "01")):
        with pytest.raises(NotebookError, match=r"01_two_phases.ipynb cannot be read as a notebook"):
            minillm(*command)
    assert own.read_text() == text
    minillm("reset", "01")
    assert json.loads(own.read_text())["nbformat"] == 4


def test_outside_the_course_it_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        commands.workbook, "__file__", str(tmp_path / "site" / "minillm" / "course" / "workbook.py")
    )
    with pytest.raises(NotebookError, match="change to the folder into which you cloned minillm"):
        minillm("start", "01", "--no-open")


def test_a_folder_that_cannot_be_written_is_named(course: Path) -> None:
    (course / "work").write_text("a file where the folder should be")
    with pytest.raises(NotebookError, match="cannot be written"):
        minillm("start", "01", "--no-open")


def test_the_copy_that_ships_counts_as_untouched() -> None:
    assert not nb.edited(nb.read(ROOT / "exercises" / NAME))


def test_what_is_no_chapter_is_said_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        minillm("start", "attention")
    assert "a chapter is named by its number, such as 03; this is 'attention'" in capsys.readouterr().err
