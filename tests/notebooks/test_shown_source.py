"""Stored text is what its source makes now: code of the package, and questions of `predict`."""

import ast
import re
from pathlib import Path

import pytest

from minillm.course import notebook as nb
from minillm.course.predict import predict
from minillm.course.show import PACKAGE, extract
from tools.notebooks import ROOT

SECTION = re.compile(r"`minillm/([\w/]+\.py)` · `([\w.]+)`\n```python\n(.*?)\n```", re.S)


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_it_is_not_stale(path: Path) -> None:
    for cell in nb.read(path)["cells"]:
        for output in cell.get("outputs", []):
            text = "".join(output.get("data", {}).get("text/markdown", ""))
            for file, name, code in SECTION.findall(text):
                assert extract(PACKAGE / file, name) == code, f"{cell['id']}: make notebooks NOTEBOOKS={path}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_the_stored_question_is_the_one_that_the_cell_asks(path: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MINILLM_DATA", str(tmp_path))
    questions = 0
    for cell in nb.read(path)["cells"]:
        if cell["cell_type"] != "code" or not nb.source(cell).startswith("predict("):
            continue
        call = ast.parse(nb.source(cell)).body[0].value
        words = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        asked = predict(*map(ast.literal_eval, call.args), **words)._repr_mimebundle_()["text/markdown"]
        [output] = cell["outputs"]
        assert "".join(output["data"]["text/markdown"]) == asked, f"make notebooks NOTEBOOKS={path}"
        questions += 1
    assert questions > 0
