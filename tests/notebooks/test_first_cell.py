"""A notebook's first cell says what to do where minillm is missing, broken or too old (the wrong kernel, elsewhere)."""

import subprocess
import sys
from pathlib import Path

import pytest

from minillm.course import notebook as nb

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted([*ROOT.glob("exercises/*.ipynb"), *ROOT.glob("solutions/*.ipynb")])
ADVICE = "open this notebook with `make lab` in the folder of minillm"


def first_cell(path: Path) -> str:
    return nb.code_cells(nb.read(path))[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_it_begins_with_the_pattern(path: Path) -> None:
    assert first_cell(path).startswith(
        "try:\n    from minillm.course import check, hint\nexcept ImportError as problem:\n"
    )
    assert ADVICE in first_cell(path)


@pytest.mark.parametrize(
    "broken", ["", "import no_such_torch", "__version__ = '0.0'"], ids=["missing", "half", "old"]
)
def test_it_says_what_to_do(tmp_path: Path, broken: str) -> None:
    if broken:
        (tmp_path / "minillm").mkdir()
        (tmp_path / "minillm" / "__init__.py").write_text(broken)
    # -I: neither this repository nor the installed package is found, as on another kernel.
    code = f"""import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path[:] = [{str(tmp_path)!r}, *(p for p in sys.path if p != {str(ROOT)!r} and "site-packages" not in p)]
"""
    run = subprocess.run(
        [sys.executable, "-I", "-c", code + first_cell(NOTEBOOKS[0])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ") and ADVICE in last, run.stderr
