"""Every stored notebook is normalised, run, free of errors, and small, and its checked cells show something."""

from pathlib import Path

import pytest

from minillm.course import notebook as nb
from tools.notebooks import normalise, vacuous

ROOT = Path(__file__).parents[2]
LESSONS, SOLUTIONS = (sorted(ROOT.glob(f"{folder}/*.ipynb")) for folder in ("notebooks", "solutions"))
every_notebook = pytest.mark.parametrize(
    "path", LESSONS + SOLUTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}"
)


def checked(notebook: nb.Notebook) -> list[dict]:
    return [cell for cell in notebook["cells"] if "nbval-check-output" in cell["metadata"].get("tags", [])]


@every_notebook
def test_it_is_normalised(path: Path) -> None:
    assert nb.to_text(normalise(nb.read(path))) == path.read_text(encoding="utf-8"), "make notebooks"


@every_notebook
def test_it_is_small(path: Path) -> None:
    assert path.stat().st_size < 600_000
    for cell in nb.read(path)["cells"]:
        for output in cell.get("outputs", []):
            picture = "".join(output.get("data", {}).get("image/png", ""))
            assert len(picture) < 150_000, f"{cell['id']} stores a picture of {len(picture) / 1000:.0f} kB"


@every_notebook
def test_it_stores_no_errors_and_no_warnings(path: Path) -> None:
    for cell in nb.read(path)["cells"]:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error" and output.get("name") != "stderr", cell["id"]


@every_notebook
def test_nothing_is_skipped(path: Path) -> None:
    assert not [c["id"] for c in nb.read(path)["cells"] if "nbval-skip" in c["metadata"].get("tags", [])]


@every_notebook
def test_its_checked_cells_show_something(path: Path) -> None:
    """nbval passes a checked cell whose stored output was stripped."""
    for cell in checked(nb.read(path)):
        assert cell["outputs"] and cell["execution_count"], f"{cell['id']} was stored without its output"
        assert not vacuous(cell), f"{cell['id']} checks nothing"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_several_checked_cells(path: Path) -> None:
    assert len(checked(nb.read(path))) >= 3


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_every_check_of_a_solution_is_checked(path: Path) -> None:
    notebook = nb.read(path)
    checks = [c["id"] for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("grade")]
    assert checks == [cell["id"] for cell in checked(notebook)]
