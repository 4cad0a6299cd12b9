"""The normaliser keeps what teaches and drops what only makes noise."""

from typing import Any

import pytest

from tools.notebooks import WIDGET, normalise, vacuous


def code(source: str = "x", **fields: Any) -> dict[str, Any]:
    cell = {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
    return cell | fields


def notebook(*cells: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def show(**data: str) -> dict[str, Any]:
    data = {name.replace("_", "/"): value for name, value in data.items()}
    return {"output_type": "display_data", "data": data, "metadata": {"image/png": {"width": 3}}}


def ids(*cells: dict[str, Any]) -> list[str]:
    return [cell["id"] for cell in normalise(notebook(*cells))["cells"]]


def test_ids_are_readable_unique_and_stay() -> None:
    made = ids(
        {"cell_type": "markdown", "metadata": {}, "source": "text\n# The KV cache: why?"},
        code("import torch\n\ndef cached_step(x):\n    pass", id="1f2e3d4c"),
        code("def cached_step(x): ...", id="0b1c2d3e-1111-4222-8333-444455556666"),
        code("draw(x)", id="my-id"),
        code("draw(x)", id="my-id"),
        code("solve()", metadata={"nbgrader": {"grade_id": "check_01.1"}}),
        code("%%time"),
        code("1"),
        code("decade()", id="decade"),
    )
    assert (
        made
        == "the-kv-cache-why cached-step cached-step-2 my-id my-id-2 check-01-1 time code-cell decade".split()
    )
    cells = [code("draw(x)", id=name) for name in made]
    assert ids(*cells) == made


def test_timestamps_widgets_and_versions_go() -> None:
    cell = code(metadata={"execution": {"iopub": "2026"}, "tags": ["a"], "collapsed": True})
    made = normalise(
        notebook(cell, widgets={"state": 1}, language_info={"version": "3.11"}, minillm={"code": "h"})
    )
    assert made["cells"][0]["metadata"] == {"tags": ["a"]}
    assert made["metadata"] == {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "minillm": {"code": "h"},
    }


def test_executed_cells_are_numbered_and_others_are_not() -> None:
    result = {
        "output_type": "execute_result",
        "data": {"text/plain": "1"},
        "metadata": {},
        "execution_count": 40,
    }
    made = normalise(notebook(code(execution_count=12, outputs=[result]), code(), code(execution_count=5)))[
        "cells"
    ]
    assert [cell["execution_count"] for cell in made] == [1, None, 2]
    assert made[0]["outputs"][0]["execution_count"] == 1


def test_one_picture_stays_and_no_widget() -> None:
    text = {"output_type": "stream", "name": "stdout", "text": ["hello"]}
    widget = {"output_type": "display_data", "data": {WIDGET: {"model_id": "x"}}, "metadata": {}}
    outputs = [text, show(image_png="first"), widget, show(image_png="last", text_plain="<Figure>")]
    made = normalise(notebook(code(outputs=outputs)))["cells"][0]["outputs"]
    assert [output.get("text") or output["data"].get("image/png") for output in made] == [["hello"], "last"]
    assert made[1]["metadata"] == {"image/png": {"width": 3}}


def test_of_the_metadata_only_the_width_of_a_picture_stays() -> None:
    sized = {"image/png": {"width": 3, "height": 2, "unconfined": True}, "isolated": True}
    outputs = [show(image_png="picture"), show(text_plain="1")]
    made = normalise(notebook(code(outputs=[output | {"metadata": sized} for output in outputs])))
    assert [output["metadata"] for output in made["cells"][0]["outputs"]] == [
        {"image/png": {"width": 3}},
        {},
    ]


def test_what_was_printed_is_one_output_however_it_was_cut() -> None:
    def stream(name: str, *text: str) -> dict[str, Any]:
        return {"output_type": "stream", "name": name, "text": list(text)}

    outputs = [
        stream("stdout", "a\n", "b"),
        stream("stdout", "c\n"),
        stream("stderr", "d"),
        stream("stdout", "e"),
    ]
    made = normalise(notebook(code(outputs=outputs)))["cells"][0]["outputs"]
    assert made == [stream("stdout", "a\n", "bc\n"), stream("stderr", "d"), stream("stdout", "e")]


def test_a_cell_that_shows_source_stores_nothing() -> None:
    made = normalise(
        notebook(code(outputs=[show(text_plain="def attend")], metadata={"tags": ["shows-source"]}))
    )
    assert made["cells"][0]["outputs"] == []


def test_it_changes_neither_its_argument_nor_its_own_result() -> None:
    given = notebook(code("y = 1\n\n", outputs=[show(image_png="p")], execution_count=3))
    before = repr(given)
    made = normalise(given)
    assert repr(given) == before and normalise(made) == made


@pytest.mark.parametrize(
    ("source", "shown", "empty"),
    [
        ("print(True)", "True\n", True),
        ("print(x == 3)", "True\n", True),
        ("print('12 tokens')", "12 tokens\n", True),
        ("print(n, 'tokens')", "12 tokens\n", False),
        ("f'{n} tokens'", "'12 tokens'", False),
    ],
)
def test_vacuous_checks_are_told(source: str, shown: str, empty: bool) -> None:
    assert (
        vacuous(code(source, outputs=[{"output_type": "stream", "name": "stdout", "text": shown}])) is empty
    )
