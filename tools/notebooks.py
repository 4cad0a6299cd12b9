"""Run the notebooks and write them in one form, so that a diff shows what changed and nothing else.

    python -m tools.notebooks [NOTEBOOK …]             run and normalise (all of notebooks/ and solutions/ by default)
    python -m tools.notebooks --no-run [NOTEBOOK …]    normalise only

The form: readable cell ids; text outputs kept; at most one picture a cell, with its width; no outputs under the tag
`shows-source`, as they would go stale; executed cells numbered from 1; no timestamps, widget states or versions; the
kernel named python3.
"""

import argparse
import ast
import os
import re
import sys
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

from minillm.course import notebook as nb
from minillm.player.page import refreshed

ROOT = Path(__file__).parents[1]
SECONDS = 120  # for one cell
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_READABLE = re.compile(r"(?=.{2,40}$)[a-z][a-z0-9]*(-[a-z0-9]+)*")
_RANDOM = re.compile(r"(?=.*\d)[0-9a-f]{8}(-[0-9a-f]{4}){0,3}(-[0-9a-f]{12})?")  # what Jupyter makes up
Cell = dict[str, Any]


def normalise(notebook: nb.Notebook) -> nb.Notebook:
    """The same notebook in the one form."""
    ids: set[str] = set()
    cells = [_cell(cell, ids) for cell in deepcopy(notebook["cells"])]
    executed = [cell for cell in cells if cell.get("execution_count") is not None]
    for number, cell in enumerate(executed, start=1):
        cell["execution_count"] = number
        for output in cell["outputs"]:
            if "execution_count" in output:
                output["execution_count"] = number
    metadata: dict[str, Any] = dict(METADATA)
    if "minillm" in notebook["metadata"]:
        metadata["minillm"] = notebook["metadata"]["minillm"]
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _cell(cell: Cell, ids: set[str]) -> Cell:
    metadata = {
        key: cell["metadata"][key] for key in ("tags", "nbgrader", "jupyter") if key in cell["metadata"]
    }
    text = nb.source(cell).rstrip("\n")
    cell_id = _cell_id(cell, text, ids)
    ids.add(cell_id)
    kept = {
        "cell_type": cell["cell_type"],
        "id": cell_id,
        "metadata": metadata,
        "source": text.splitlines(keepends=True),
    }
    if cell["cell_type"] == "code":
        kept["execution_count"] = cell["execution_count"]
        kept["outputs"] = [] if "shows-source" in metadata.get("tags", []) else _outputs(cell["outputs"])
    return kept


def _cell_id(cell: Cell, text: str, taken: set[str]) -> str:
    """The id that it has if people can read it, else one from its grade_id, heading or the first thing it defines."""
    known = str(cell.get("id", ""))
    name = known if _READABLE.fullmatch(known) and not _RANDOM.fullmatch(known) else _name(cell, text)
    number, base = 1, name
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def _name(cell: Cell, text: str) -> str:
    words = cell["metadata"].get("nbgrader", {}).get("grade_id", "")
    if not words and cell["cell_type"] == "code":
        defined = re.search(r"^(?:class|def) (\w+)|^(\w+) = ", text, re.MULTILINE)
        words = (defined[1] or defined[2]) if defined else " ".join(re.findall(r"[a-zA-Z]+", text)[:3])
    elif not words:
        heading = re.search(r"^#+ *(.+)$", text, re.MULTILINE)
        words = heading[1] if heading else " ".join(text.split()[:4])
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:30].strip("-")
    return slug if _READABLE.fullmatch(slug) else f"{cell['cell_type']}-{slug or 'cell'}"


def _size(output: dict[str, Any]) -> dict[str, Any]:
    """The metadata that stays: how wide a picture is shown, as its file has more pixels for sharp screens."""
    width = output["metadata"].get("image/png", {}).get("width")
    return {"image/png": {"width": width}} if width and "image/png" in output["data"] else {}


def _outputs(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without widgets, which are blank without their state, and without any picture but the last.

    A stored player or race gets the module of today.

    Text that was printed at once is one output, even if the kernel sent it in pieces.
    """
    kept: list[dict[str, Any]] = []
    for output in outputs:
        if kept and "name" in output and kept[-1].get("name") == output["name"]:
            text = "".join([*kept[-1]["text"], *output["text"]])
            kept[-1]["text"] = text.splitlines(keepends=True)
            continue
        if "data" in output:
            if output["data"].pop(WIDGET, None) and len(output["data"]) > 1:
                output["data"].pop("text/plain", None)  # "VBox(children=…" is no picture of the widget
            if "text/html" in output["data"]:
                html = refreshed("".join(output["data"]["text/html"]))
                output["data"]["text/html"] = html.splitlines(keepends=True)
            output["metadata"] = _size(output)
            if not output["data"]:
                continue
        kept.append(output)
    pictures = [output for output in kept if "image/png" in output.get("data", {})]
    return [output for output in kept if output not in pictures[:-1]]


def run(path: Path) -> nb.Notebook:
    """The notebook after running it in its own folder, with marks and measurements kept out of the user's folders."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    return dict(nbformat.v4.rwbase.split_lines(notebook))


def vacuous(cell: Cell) -> bool:
    """Whether a checked cell proves nothing: all it shows are words like True, or all it prints is written in it."""
    shown = "".join(
        "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
        for output in cell["outputs"]
    )
    if set(shown.split()) <= {"True", "False", "None", "ok", "OK"}:
        return True
    body = ast.parse(nb.source(cell)).body
    return all(not isinstance(node, ast.Name) or node.id == "print" for top in body for node in ast.walk(top))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run notebooks and write them in one form.")
    parser.add_argument("--no-run", action="store_true", help="normalise only")
    parser.add_argument("notebooks", nargs="*", type=Path)
    args = parser.parse_args(argv)
    paths = args.notebooks or sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("solutions/*.ipynb")])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINILLM_DATA"] = folder
        for path in paths:
            before = path.read_text(encoding="utf-8")
            notebook = normalise(nb.read(path) if args.no_run else run(path))
            nb.write(path, notebook)
            print(path if nb.to_text(notebook) == before else f"{path}: changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
