"""The drawings are what their code makes, are small, and every one that a chapter shows exists and has words."""

import re
import xml.etree.ElementTree as ET

import pytest

from minillm.course import notebook as nb
from tools.drawings.__main__ import FOLDER, drawings
from tools.notebooks import ROOT

SHOWN = {
    match: path
    for path in sorted(ROOT.glob("notebooks/*.ipynb"))
    for match in re.findall(r"!\[.*?\]\(figures/(.*?)\)", "\n".join(map(nb.source, nb.read(path)["cells"])))
}


def test_the_files_are_current() -> None:
    made = drawings()
    assert {file.name for file in FOLDER.glob("*.svg")} == set(made), "python -m tools.drawings"
    for name, svg in made.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == svg, f"{name}: python -m tools.drawings"


@pytest.mark.parametrize("name", drawings())
def test_a_drawing_is_small_and_says_what_it_shows(name: str) -> None:
    svg = drawings()[name]
    assert len(svg) < 40_000 and "prefers-color-scheme: dark" in svg
    tree = ET.fromstring(svg)
    assert len(tree.attrib["aria-label"]) > 20
    width, height = float(tree.attrib["width"]), float(tree.attrib["height"])
    for text in tree.iter("{http://www.w3.org/2000/svg}text"):
        size, x = float(text.attrib["font-size"]), float(text.attrib["x"])
        room = len(text.text or "") * size * 0.56
        left = x - {"start": 0, "middle": room / 2, "end": room}[text.attrib["text-anchor"]]
        assert left >= 0 and left + room <= width + 4, f"{name}: {text.text!r} leaves the card"
        assert 0 < float(text.attrib["y"]) < height and size >= 10


def test_every_drawing_is_shown() -> None:
    assert set(SHOWN) == set(drawings())
