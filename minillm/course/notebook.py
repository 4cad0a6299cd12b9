"""A notebook as the JSON that it is: read, write, and tell whether its code was edited."""

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
    """The notebook at `path`. Raises NotebookError."""
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
    """Write it as Jupyter does, whole or not at all."""
    store.write(path, to_text(notebook))


def to_text(notebook: Notebook) -> str:
    """The file's text as Jupyter writes it."""
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def source(cell: dict[str, Any]) -> str:
    """A cell's text, which the format allows to be a list of lines."""
    return "".join(cell["source"])


def code_cells(notebook: Notebook) -> list[str]:
    """The sources of the code cells, in order."""
    return [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def code_hash(notebook: Notebook) -> str:
    """A fingerprint of the code cells' sources: prose, outputs and metadata may change without changing it."""
    return hashlib.sha256(json.dumps(code_cells(notebook)).encode()).hexdigest()


def stamp(notebook: Notebook) -> None:
    """Note the fingerprint in the metadata."""
    notebook["metadata"]["minillm"] = {"code": code_hash(notebook)}


def stamped(notebook: Notebook) -> str:
    """The fingerprint that was noted; "" if none was."""
    return str(notebook["metadata"].get("minillm", {}).get("code", ""))


def edited(notebook: Notebook) -> bool:
    """Whether the code differs from what was noted."""
    return stamped(notebook) != code_hash(notebook)
