"""The learner's own copies under `work/`: the exercises in `work/`, the chapters in `work/chapters/`.

`notebooks/` and `exercises/` belong to git and `work/` to the learner. Running a copy changes no tracked file, and
`git pull` never conflicts with a learner's edits. A copy whose code was changed is never overwritten.
"""

from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path

from minillm import store
from minillm.course import notebook as nb
from minillm.course.links import relink
from minillm.course.notebook import NotebookError


def course_root() -> Path:
    """Return the course's folder: one that contains the current folder, or the one that minillm was imported from.

    Raises NotebookError if neither of them has the notebooks.
    """
    for folder in (here := Path.cwd(), *here.parents, Path(__file__).parents[2]):
        if (folder / "exercises").is_dir() and (folder / "notebooks").is_dir():
            return folder
    raise NotebookError(
        f"the course's notebooks are not in {here} or above it. The installed package has the engine and the checks, "
        "but no notebooks: change to the folder into which you cloned minillm"
    )


def chapter_number(text: str) -> str:
    """Return "03" for "3", "03" and "03_kv_cache.ipynb". Raises ArgumentTypeError, which argparse prints."""
    digits = Path(text).name.split("_")[0].removesuffix(".ipynb")
    if not digits.isascii() or not digits.isdigit():
        raise ArgumentTypeError(f"a chapter is named by its number, such as 03; this is {text!r}")
    return f"{int(digits):02}"


def exercise_notebook(root: Path, chapter: str) -> Path:
    """Return the path of a chapter's exercises as the course ships them. Raises NotebookError."""
    found = sorted((root / "exercises").glob(f"{chapter}_*.ipynb"))
    if not found:
        there = ", ".join(sorted(path.name[:2] for path in (root / "exercises").glob("*.ipynb")))
        raise NotebookError(
            f"chapter {chapter} has no exercises in {root / 'exercises'}. These chapters have some: {there or 'none'}"
        )
    return found[0]


def own_notebook(root: Path, chapter: str) -> Path:
    """Return the path of the learner's copy of a chapter's exercises, which may not exist yet."""
    return own_path(root, exercise_notebook(root, chapter))


def own_path(root: Path, given: Path) -> Path:
    """Return the path of the learner's copy of a shipped notebook. Any other path is returned unchanged."""
    if given.suffix == ".ipynb" and given.parent == root / "notebooks":
        return root / "work" / "chapters" / given.name
    if given.suffix == ".ipynb" and given.parent == root / "exercises":
        return root / "work" / given.name
    return given


def start(root: Path, chapter: str) -> tuple[Path, str]:
    """Bring the learner's copy of a chapter's exercises up to date, and return its path and what was done."""
    given = exercise_notebook(root, chapter)
    own = own_path(root, given)
    update = _update(root, given)
    if update.kept_edits:
        return own, (
            f"your copy is {own}. It stays as it is, because you changed its code. The course has a newer version: "
            f"`minillm reset {chapter}` takes it and keeps yours next to it"
        )
    if update.backup:
        return (
            own,
            f"the newer version was copied to {own}. Your copy, with your notes, is now {update.backup}",
        )
    return own, f"copied to {own}" if update.written else f"your copy is {own}"


def prepare(root: Path) -> list[str]:
    """Bring the learner's copies of all chapters and exercises up to date, and return the sentences to show.

    A copy with changed code stays. For a chapter, the newer version is then put next to it as `NAME.new.ipynb`.
    """
    says, num_written = [], 0
    for given in sorted([*(root / "notebooks").glob("*.ipynb"), *(root / "exercises").glob("*.ipynb")]):
        own = own_path(root, given)
        try:
            update = _update(root, given)
            num_written += update.written
            if update.backup:
                says.append(f"{own} was renewed. Your copy, with your notes, is now {update.backup}.")
            if update.kept_edits and given.parent.name == "notebooks" and (new := _put_next_to(root, given)):
                says.append(
                    f"{own} stays as it is, because you changed its code. The newer version is {new}."
                )
        except NotebookError as error:
            says.append(f"{error}.")
    if num_written:
        says.append(f"Notebooks copied to {root / 'work'}, where you can change them freely: {num_written}.")
    return says


def reset(root: Path, chapter: str) -> str:
    """Replace the learner's copy of a chapter's exercises, keep it under a free name, and return what was done."""
    given = exercise_notebook(root, chapter)
    own = own_path(root, given)
    backup = _set_aside(own) if own.exists() else ""
    _write(own, _copy_of(root, given, own))
    return (
        f"{own} is as new, and your old copy is {backup}. Your marks stay" if backup else f"copied to {own}"
    )


@dataclass(frozen=True)
class _Update:
    """The change to one copy. `backup` is the name under which the old copy is kept, if it had notes in it."""

    written: bool = False
    backup: str = ""
    kept_edits: bool = False


def _update(root: Path, given: Path) -> _Update:
    """Write the learner's copy if there is none, or if there is a newer version and its code was not changed."""
    own = own_path(root, given)
    newest = _copy_of(root, given, own)
    if not own.exists():
        _write(own, newest)
        return _Update(written=True)
    try:
        theirs = nb.read(own)
    except NotebookError as error:
        raise NotebookError(f"{error}. Rename that file, and the next start makes a new copy") from error
    if nb.same_version(theirs, newest):
        return _Update()
    if nb.edited(theirs):
        return _Update(kept_edits=True)
    backup = _set_aside(own) if nb.annotated(theirs) else ""
    _write(own, newest)
    return _Update(written=True, backup=backup)


def _put_next_to(root: Path, given: Path) -> Path | None:
    """Write the newest version as `NAME.new.ipynb`; return that path, or None if it is there already."""
    own = own_path(root, given)
    new = own.with_name(f"{own.stem}.new.ipynb")
    newest = _copy_of(root, given, new)
    if new.exists() and nb.same_version(nb.read(new), newest):
        return None
    _write(new, newest)
    return new


def _copy_of(root: Path, given: Path, own: Path) -> nb.Notebook:
    """Return a shipped notebook with links that work from the folder of `own`, and with its fingerprints."""
    notebook = nb.read(given)
    relink(notebook, given.parent, own.parent, lambda path: own_path(root, path))
    nb.stamp(notebook)
    return notebook


def _set_aside(own: Path) -> str:
    try:
        return store.set_aside(own, "backup").name
    except OSError as error:
        raise NotebookError(f"{own} cannot be set aside, so it stays as it is: {error}") from error


def _write(own: Path, notebook: nb.Notebook) -> None:
    try:
        nb.write(own, notebook)
    except OSError as error:
        raise NotebookError(f"{own} cannot be written: {error}") from error
