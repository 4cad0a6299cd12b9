"""Every hole of a chapter: empty as stored, its answer folded below it, and right by its own check.

A chapter runs with its holes unfilled (nbval) and filled (here).
"""

import ast
import linecache
import os
import re
from pathlib import Path

import pytest
import torch

from minillm.course import hole
from minillm.course import notebook as nb
from tools.notebooks import ROOT, run

FOLDED = re.compile(r"<details><summary>The answer</summary>\n\n```python\n(.*?)```", re.S)
LESSONS = sorted(ROOT.glob("notebooks/*.ipynb"))


def holes(notebook: nb.Notebook) -> list[tuple[dict, str, str]]:
    """Return (cell of the hole, its id, the folded answer)."""
    cells = notebook["cells"]
    found = []
    for place, cell in enumerate(cells):
        if "hole" in cell["metadata"].get("tags", []):
            check, answer = cells[place + 1], cells[place + 2]
            name = re.search(r'fill\("([\w.]+)", (\w+)\)', nb.source(check))
            folded = FOLDED.search(nb.source(answer))
            assert name and folded, f"{cell['id']}: a check and a folded answer must follow"
            found.append((cell, name[1], folded[1]))
    return found


def defined(code: str, name: str) -> dict:
    """Return what the code defines, in a space that has torch. Its source can be found, like that of a cell."""
    file, space = f"<answer {name}>", {"torch": torch}
    linecache.cache[file] = len(code), None, code.splitlines(keepends=True), file
    exec(compile(code, file, "exec"), space)
    return space


WITH_HOLES = [path for path in LESSONS if holes(nb.read(path))]


@pytest.mark.parametrize("path", WITH_HOLES, ids=lambda path: path.stem)
def test_the_hole_is_empty_and_the_answer_fills_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cell, name, answer in holes(nb.read(path)):
        [stub], [filled] = (ast.parse(text).body for text in (nb.source(cell), answer))
        assert isinstance(stub, ast.FunctionDef) and isinstance(filled, ast.FunctionDef)
        assert "..." in nb.source(cell)
        assert stub.name == filled.name and ast.dump(stub.args) == ast.dump(filled.args), "another signature"
        hole.find(name).check(defined(answer, name)[filled.name])


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_HOLES, ids=lambda path: path.stem)
def test_a_filled_chapter_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nb.read(path)
    for cell, _, answer in holes(notebook):
        cell["source"] = answer.splitlines(keepends=True)
    (tmp_path / "figures").symlink_to(ROOT / "notebooks" / "figures")
    nb.write(tmp_path / path.name, notebook)
    monkeypatch.setenv("MINILLM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    ran = run(tmp_path / path.name)
    checks = [cell for cell in ran["cells"] if re.search(r"= fill\(", nb.source(cell))]
    for cell in checks:
        assert any("✓" in "".join(output.get("text", "")) for output in cell["outputs"]), cell["id"]
