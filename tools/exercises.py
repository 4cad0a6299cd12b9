"""Write exercises/ from solutions/: the answers cut out, the outputs dropped.

    python -m tools.exercises            write
    python -m tools.exercises --check    say what is stale, and exit with status 1

An answer is the text between nbgrader's markers. The text around them (a signature, a docstring, comments) stays. The
cells' nbgrader metadata stays too: with it an instructor can take solutions/ into nbgrader.
"""

import re
import sys
from copy import deepcopy
from pathlib import Path

from minillm.course import notebook as nb
from minillm.course.exercise import STUB

ROOT = Path(__file__).parents[1]
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
_ANSWER = re.compile(rf"^([ \t]*){BEGIN}\n.*?^[ \t]*{END}[ \t]*$", re.MULTILINE | re.DOTALL)


def stub(source: str) -> str:
    """A cell's source with each answer replaced by an exception. Raises ValueError for markers without a partner."""
    text = _ANSWER.sub(rf'\1raise NotImplementedError("{STUB}")', source)
    if BEGIN in text or END in text:
        raise ValueError(f"{BEGIN} and {END} must come in pairs, each on a line of its own:\n{source}")
    return text


def exercise(solution: nb.Notebook) -> nb.Notebook:
    """The exercise notebook of a solution notebook."""
    notebook = deepcopy(solution)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = stub(nb.source(cell)).splitlines(keepends=True)
            cell["outputs"], cell["execution_count"] = [], None
    nb.stamp(notebook)
    return notebook


def wanted(root: Path) -> dict[Path, str]:
    """Return the text of each file that exercises/ should hold."""
    return {
        root / "exercises" / path.name: nb.to_text(exercise(nb.read(path)))
        for path in sorted((root / "solutions").glob("*.ipynb"))
    }


def stale(root: Path) -> list[str]:
    """The files of exercises/ that are missing, differ, or should not be there."""
    files = wanted(root)
    extra = set((root / "exercises").glob("*.ipynb")) - set(files)
    differ = {p for p, text in files.items() if not p.exists() or p.read_text(encoding="utf-8") != text}
    return sorted(str(path.relative_to(root)) for path in extra | differ)


def main(root: Path, *, check: bool) -> int:
    names = stale(root)
    if check:
        for name in names:
            print(f"{name} is stale: make exercises")
        return 1 if names else 0
    (root / "exercises").mkdir(exist_ok=True)
    files = wanted(root)
    for name in names:
        path = root / name
        if path in files:
            path.write_text(files[path], encoding="utf-8", newline="\n")
        else:
            path.unlink()
        print(f"{'wrote' if path in files else 'removed'} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(ROOT, check="--check" in sys.argv[1:]))
