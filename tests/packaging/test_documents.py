"""The documents are true: links lead somewhere, and the README's table tells which chapters exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(path for path in ROOT.glob("*.md"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"<!--.*?-->|```.*?```", "", document.read_text(), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [
        target for target in targets if target and "://" not in target and not (ROOT / target).exists()
    ]
    assert not missing


def test_the_table_of_chapters_is_true() -> None:
    text = (ROOT / "README.md").read_text()
    there = {path.name for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    linked = set(re.findall(r"\(notebooks/(\d\d_\w+\.ipynb)\)", text))
    assert there == linked, (
        "the table in README.md links each chapter that exists, and marks the others `to come`"
    )
    rows = {row[0] for row in re.findall(r"^\| (\d\d) (.*)$", text, flags=re.MULTILINE)}
    assert rows == {f"{number:02}" for number in range(16)}
