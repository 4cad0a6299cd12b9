"""The learner's own copies under work/: made by `start`, set aside by `reset`, and never overwritten.

`exercises/` belongs to git, `work/` to the learner, so that `git pull` never meets a learner's edits.
"""

from argparse import ArgumentTypeError
from pathlib import Path

from minillm import store
from minillm.course import notebook as nb
from minillm.course.notebook import NotebookError


def course_root() -> Path:
    """The course's folder: the one above the current folder, else the one that minillm is imported from.

    Raises NotebookError if neither has exercises.
    """
    for folder in (here := Path.cwd(), *here.parents, Path(__file__).parents[2]):
        if (folder / "exercises").is_dir() and (folder / "notebooks").is_dir():
            return folder
    raise NotebookError(
        f"the course's notebooks are not in {here} nor above it: change to the folder into which you cloned minillm "
        "(the installed package brings the engine and the checks, not the notebooks)"
    )


def chapter_number(text: str) -> str:
    """ "3", "03" and "03_kv_cache.ipynb" are all "03". Raises ArgumentTypeError, whose words argparse prints."""
    digits = Path(text).name.split("_")[0].removesuffix(".ipynb")
    if not digits.isascii() or not digits.isdigit():
        raise ArgumentTypeError(f"a chapter is named by its number, such as 03; this is {text!r}")
    return f"{int(digits):02}"


def exercise_notebook(root: Path, chapter: str) -> Path:
    """A chapter's notebook as the course ships it. Raises NotebookError."""
    found = sorted((root / "exercises").glob(f"{chapter}_*.ipynb"))
    if not found:
        there = ", ".join(sorted(path.name[:2] for path in (root / "exercises").glob("*.ipynb")))
        raise NotebookError(
            f"chapter {chapter} has no exercises in {root / 'exercises'}; these have: {there or '–'}"
        )
    return found[0]


def own_notebook(root: Path, chapter: str) -> Path:
    """Where the learner's copy of a chapter stands, or will."""
    return root / "work" / exercise_notebook(root, chapter).name


def start(root: Path, chapter: str) -> tuple[Path, str]:
    """Make the learner's copy if there is none; (where it is, what was done)."""
    given, own = exercise_notebook(root, chapter), own_notebook(root, chapter)
    if not own.exists():
        _copy(given, own)
        return own, f"copied to {own}"
    theirs = nb.read(own)
    if nb.stamped(theirs) == nb.stamped(nb.read(given)):
        return own, f"yours is {own}"
    if nb.edited(theirs):
        return own, (
            f"yours is {own}, and stays as it is. The course has a newer one: `minillm reset {chapter}` takes that and "
            "keeps yours next to it"
        )
    kept = _replace(given, own)
    return (
        own,
        f"the course has a newer one, and you had written no code: copied to {own}. Yours is kept as {kept}",
    )


def reset(root: Path, chapter: str) -> str:
    """Begin a chapter again, with the learner's copy kept under the first free number; what was done."""
    given, own = exercise_notebook(root, chapter), own_notebook(root, chapter)
    if not own.exists():
        _copy(given, own)
        return f"copied to {own}"
    return f"{own} is as new; yours is kept as {_replace(given, own)}. Your marks stay"


def _replace(given: Path, own: Path) -> str:
    """Put the course's notebook in the place of the learner's, and return the name under which that is kept."""
    try:
        kept = store.set_aside(own, "backup")
    except OSError as error:
        raise NotebookError(f"{own} cannot be set aside, so it stays as it is: {error}") from error
    _copy(given, own)
    return kept.name


def _copy(given: Path, own: Path) -> None:
    try:
        store.write(own, given.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotebookError(f"{own} cannot be written: {error}") from error
