"""A notebook as the JSON document it is: read it, write it, and tell whether a learner changed it.

A copy carries two fingerprints in its metadata. `code` covers the code cells and `text` covers every cell. Outputs are
in neither, so running a notebook does not count as a change.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from minillm import store
from minillm.errors import MinillmError

Notebook = dict[str, Any]


class NotebookError(MinillmError):
    """A notebook that is missing or cannot be read."""


def read(path: Path) -> Notebook:
    """Return the notebook at `path`. Raises NotebookError."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if notebook["nbformat"] != 4 or not all("source" in cell for cell in notebook["cells"]):
            raise ValueError("it is not of format 4")
        return dict(notebook)
    except FileNotFoundError:
        raise NotebookError(f"there is no notebook {path}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise NotebookError(f"{path} cannot be read as a notebook: {error}") from error


def write(path: Path, notebook: Notebook) -> None:
    """Write a notebook as Jupyter does. If that fails, the old file stays whole."""
    store.write(path, to_text(notebook))


def to_text(notebook: Notebook) -> str:
    """Return the file's text as Jupyter writes it."""
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def source(cell: dict[str, Any]) -> str:
    """Return a cell's text. The format allows a list of lines as well as a string."""
    return "".join(cell["source"])


def code_cells(notebook: Notebook) -> list[str]:
    """Return the sources of the code cells, in order."""
    return [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def stamp(notebook: Notebook) -> None:
    """Store the fingerprints in the metadata."""
    notebook["metadata"]["minillm"] = {"code": _code_hash(notebook), "text": _text_hash(notebook)}


def same_version(one: Notebook, other: Notebook) -> bool:
    """Return whether two notebooks were stamped with the same sources."""
    return all(_stamped(one, kind) == _stamped(other, kind) for kind in ("code", "text"))


def edited(notebook: Notebook) -> bool:
    """Return whether the code differs from the code that was stamped."""
    return _stamped(notebook, "code") != _code_hash(notebook)


def annotated(notebook: Notebook) -> bool:
    """Return whether any cell, prose included, differs from the cells that were stamped."""
    return _stamped(notebook, "text") != _text_hash(notebook)


def _stamped(notebook: Notebook, kind: str) -> str:
    return str(notebook["metadata"].get("minillm", {}).get(kind, ""))


def _code_hash(notebook: Notebook) -> str:
    return _sha256(code_cells(notebook))


def _text_hash(notebook: Notebook) -> str:
    return _sha256([[cell["cell_type"], source(cell)] for cell in notebook["cells"]])


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
