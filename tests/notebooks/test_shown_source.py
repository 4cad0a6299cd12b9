"""The stored source of the package is what the files have now."""

import re
from pathlib import Path

import pytest

from minillm.course import notebook as nb
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
