"""The check in a real notebook: nothing that the notebook patches reaches it, marks stay, the kernel survives."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient", reason="nbclient is part of the course extra")

ROOT = Path(__file__).parents[2]
RIGHT = (ROOT / "tests" / "exercises" / "right" / "ch01" / "attention_token_by_token.py").read_text()
CELLS = [
    "from minillm.course import check, hint",
    RIGHT,
    "check('01.1', causal_attention)",
    "import os\ndef causal_attention(q, k, v):\n    os._exit(0)",
    "check('01.1', causal_attention)",
    "import torch\nfrom minillm.course import expect\nexpect.close = torch.isclose = lambda *a, **k: None\n"
    "import minillm.course.checks.ch01 as checks\nchecks.attention = None\n"
    "def causal_attention(q, k, v):\n    return v.clone()",
    "check('01.1', causal_attention)",
    "check('01.1', causal_attention(1, 2, torch.ones(2)))",
    "hint('01.1')",
    "print('alive')",
]


@pytest.mark.slow
def test_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINILLM_DATA", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = ["".join(output["text"] for output in cell["outputs"]) for cell in notebook["cells"]]
    assert "4 of 4 points" in shown[2]
    assert "ended the whole process with status 0" in shown[4] and "stays: 4 of 4 points" in shown[4]
    assert "1 of 4 points" in shown[6] and "is wrong in" in shown[6]
    assert "check takes your function itself" in shown[7]
    assert shown[8].startswith("A nudge")
    assert shown[9] == "alive\n"
