"""exercises/ is generated from solutions/, and is never stale."""

from pathlib import Path

import pytest

from minillm.course import notebook as nb
from tools import exercises

ROOT = Path(__file__).parents[2]
SOURCE = '''def f(x):
    """What it does."""
    # A comment that stays.
    if x:
        ### BEGIN SOLUTION
        # A comment that goes.
        return x
        ### END SOLUTION
    y = 0
    ### BEGIN SOLUTION
    return y
    ### END SOLUTION'''


def solution() -> nb.Notebook:
    cell = {
        "cell_type": "code",
        "execution_count": 3,
        "id": "f",
        "metadata": {"nbgrader": {"grade_id": "f"}},
        "outputs": [{"name": "stdout", "output_type": "stream", "text": ["1"]}],
        "source": SOURCE.splitlines(keepends=True),
    }
    return {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def test_exercises_are_not_stale() -> None:
    assert exercises.stale(ROOT) == [], "make exercises"


def test_the_answers_are_cut_out_and_the_rest_stays() -> None:
    assert exercises.stub(SOURCE).splitlines() == [
        "def f(x):",
        '    """What it does."""',
        "    # A comment that stays.",
        "    if x:",
        '        raise NotImplementedError("your code here")',
        "    y = 0",
        '    raise NotImplementedError("your code here")',
    ]


@pytest.mark.parametrize("marker", ["### BEGIN SOLUTION", "### END SOLUTION"])
def test_a_marker_without_its_partner_is_refused(marker: str) -> None:
    with pytest.raises(ValueError, match="in pairs"):
        exercises.stub(f"def f():\n    {marker}\n    return 1")


def test_outputs_go_and_nbgraders_metadata_stays() -> None:
    made = exercises.exercise(solution())
    assert made["cells"][0]["outputs"] == [] and made["cells"][0]["execution_count"] is None
    assert made["cells"][0]["metadata"]["nbgrader"] == {"grade_id": "f"}
    assert not nb.edited(made)


def test_stale_missing_and_left_over_files_are_found_and_mended(tmp_path: Path) -> None:
    for folder in ("solutions", "exercises"):
        (tmp_path / folder).mkdir()
    nb.write(tmp_path / "solutions" / "01_a.ipynb", solution())
    nb.write(tmp_path / "exercises" / "02_gone.ipynb", solution())
    assert exercises.stale(tmp_path) == ["exercises/01_a.ipynb", "exercises/02_gone.ipynb"]
    assert exercises.main(tmp_path, check=True) == 1
    assert exercises.main(tmp_path, check=False) == 0
    assert exercises.stale(tmp_path) == []
    assert exercises.main(tmp_path, check=True) == 0
