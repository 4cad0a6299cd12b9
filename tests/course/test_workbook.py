"""The learner's copies of the chapters: made, renewed, never overwritten; their links lead where they should."""

from pathlib import Path
from urllib.parse import unquote

import pytest

from minillm.course import notebook as nb
from minillm.course import workbook
from minillm.course.links import relink

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAME = "03_kv_cache.ipynb"


def notebook(*cells: str) -> nb.Notebook:
    """A cell that starts with `>` is code, any other is Markdown."""
    kinds = [("code", {"outputs": []}) if cell.startswith(">") else ("markdown", {}) for cell in cells]
    made = [
        {"cell_type": kind, "id": f"c{i}", "metadata": {}, "source": cell.removeprefix(">")} | more
        for i, (cell, (kind, more)) in enumerate(zip(cells, kinds, strict=True))
    ]
    return {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    nb.write(tmp_path / "notebooks" / NAME, notebook("[go](../exercises/03_kv_cache.ipynb)", ">x = 1"))
    nb.write(tmp_path / "exercises" / NAME, notebook("[read](../notebooks/03_kv_cache.ipynb)", ">y = 1"))
    return tmp_path


def change(path: Path, cell: int, source: str) -> None:
    changed = nb.read(path)
    changed["cells"][cell]["source"] = source
    nb.write(path, changed)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "work" / "chapters").iterdir())


def test_every_notebook_is_copied_once(root: Path) -> None:
    assert workbook.prepare(root) == [
        f"Notebooks copied to {root / 'work'}, where you can change them freely: 2."
    ]
    assert nb.code_cells(nb.read(root / "work" / "chapters" / NAME)) == ["x = 1"]
    assert nb.code_cells(nb.read(root / "work" / NAME)) == ["y = 1"]
    assert workbook.prepare(root) == []


def test_a_copy_that_was_only_run_is_renewed_without_a_backup(root: Path) -> None:
    workbook.prepare(root)
    own = root / "work" / "chapters" / NAME
    ran = nb.read(own)
    ran["cells"][1]["outputs"] = [{"name": "stdout", "output_type": "stream", "text": "run"}]
    ran["metadata"]["widgets"] = {"state": 1}
    nb.write(own, ran)
    change(root / "notebooks" / NAME, 0, "a better sentence")
    assert workbook.prepare(root)[0].endswith("freely: 1.")
    assert nb.source(nb.read(own)["cells"][0]) == "a better sentence" and names(root) == [NAME]


def test_a_copy_with_notes_is_renewed_and_kept(root: Path) -> None:
    workbook.prepare(root)
    change(root / "work" / "chapters" / NAME, 0, "my notes")
    change(root / "notebooks" / NAME, 1, "x = 2")
    assert "Your copy, with your notes, is now 03_kv_cache.backup-1.ipynb" in workbook.prepare(root)[0]
    kept = nb.read(root / "work" / "chapters" / "03_kv_cache.backup-1.ipynb")
    assert nb.source(kept["cells"][0]) == "my notes"
    assert nb.code_cells(nb.read(root / "work" / "chapters" / NAME)) == ["x = 2"]


def test_a_copy_with_changed_code_stays_and_the_new_one_lies_next_to_it(root: Path) -> None:
    workbook.prepare(root)
    own = root / "work" / "chapters" / NAME
    change(own, 1, "x = 'mine'")
    assert workbook.prepare(root) == [], "no newer version, so nothing to say"
    before = own.read_bytes()
    for version in ("x = 2", "x = 3"):
        change(root / "notebooks" / NAME, 1, version)
        (told,) = workbook.prepare(root)
        assert "stays as it is, because you changed its code" in told and "03_kv_cache.new.ipynb" in told
        assert workbook.prepare(root) == [], "said once"
        assert own.read_bytes() == before
        assert nb.code_cells(nb.read(own.with_name("03_kv_cache.new.ipynb"))) == [version]
    assert names(root) == ["03_kv_cache.ipynb", "03_kv_cache.new.ipynb"]


def test_a_damaged_copy_is_named_and_the_others_are_made(root: Path) -> None:
    own = root / "work" / "chapters" / NAME
    own.parent.mkdir(parents=True)
    own.write_text("{")
    told = workbook.prepare(root)
    assert f"{own} cannot be read as a notebook" in told[0] and told[1].endswith("freely: 1.")
    assert own.read_text() == "{" and (root / "work" / NAME).exists()


def test_links_of_a_copy_lead_to_the_learners_copies(root: Path) -> None:
    workbook.prepare(root)
    chapter, exercise = (nb.read(root / "work" / name) for name in (f"chapters/{NAME}", NAME))
    assert nb.source(chapter["cells"][0]) == f"[go](../{NAME})"
    assert nb.source(exercise["cells"][0]) == f"[read](chapters/{NAME})"


@pytest.mark.parametrize(
    ("written", "copied"),
    [
        ("[a](01_two_phases.ipynb#predict)", "[a](01_two_phases.ipynb#predict)"),
        ("![a](figures/block.svg)", "![a](../../notebooks/figures/block.svg)"),
        ("![a](../notebooks/figures/block.svg)", "![a](../../notebooks/figures/block.svg)"),
        ('![a](figures/block.svg "A block")', '![a](../../notebooks/figures/block.svg "A block")'),
        (
            '<img src="figures/a%20b.svg" width="40%">',
            '<img src="../../notebooks/figures/a%20b.svg" width="40%">',
        ),
        ("<a href='../minillm/ops.py'>x</a>", "<a href='../../minillm/ops.py'>x</a>"),
        ("[a](../minillm/ops.py)", "[a](../../minillm/ops.py)"),
        ("[a]: ../README.md", "[a]: ../../README.md"),
        ("[a](https://arxiv.org/abs/2309.06180)", None),
        ("[a](#predict) [b](mailto:a@b.c) ![c](attachment:c.png) [d](/lab)", None),
        ("`kernel[grid](x)` and ``a[`b`](c)``", None),
        ("```python\nkernel[grid](x)\n```", None),
        ("$x$ [not a link] (really)", None),
    ],
)
def test_each_kind_of_link(written: str, copied: str | None) -> None:
    made = notebook(written, ">open('figures/x')[0](y)")
    relink(
        made,
        ROOT / "notebooks",
        ROOT / "work" / "chapters",
        lambda path: workbook.own_path(ROOT, path),
    )
    assert nb.source(made["cells"][0]) == (copied or written)
    assert nb.code_cells(made) == ["open('figures/x')[0](y)"]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_last_link_of_a_chapter_starts_its_exercises(path: Path) -> None:
    """On GitHub it leads to the exercises that ship, in a copy to the learner's own."""
    links: list[Path] = []
    relink(nb.read(path), path.parent, path.parent, lambda target: links.append(target) or target)
    exercises = ROOT / "exercises" / path.name
    if exercises.exists():
        assert links[-1] == exercises
        assert workbook.own_path(ROOT, links[-1]) == ROOT / "work" / path.name
    missing = [link for link in links if not Path(unquote(str(link))).exists()]
    assert missing == []
