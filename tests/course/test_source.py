"""A learner's function becomes a module: from a live IPython, and from a notebook's cells without running them."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from minillm.course.source import CannotSend, from_cells, from_function

ROOT = Path(__file__).parents[2]

# Cells of a notebook, then what is checked; run in one IPython shell, in a process of its own as it takes __main__.
CELLS = [
    "import math\nimport torch.nn.functional as F\nimport torch\nfrom torch import Tensor",
    "from functools import lru_cache",
    "SCALE = 2.0\nTABLE = torch.arange(3.0)\nunused = open('/dev/null')\nq = open('/dev/null')",
    "from dataclasses import dataclass\n\n@dataclass\nclass Config:\n    width: int = 4\n\nCONFIG = Config(7)",
    "class Box:\n    def __init__(self, x): self.x = x\n    def get(self): return half(self.x)",
    "%time half = lambda x: x / 2",
    "half = lambda x: x / 2\n@lru_cache\ndef helper(x: float) -> float:\n    return half(x) * SCALE",
    "# a comment\n\ndef f(q: Tensor, config: Config = CONFIG) -> Tensor:\n"
    "    'Uses everything.'\n"
    "    return F.relu(q) + TABLE + helper(1.0) + math.pi * Box(config.width).get() + g(0)\n"
    "def g(n): return f(n) if n else 0",
    "f_before = f",
    "def f(q): return 'a later one'",
    "def uses_file(): return unused",
    "def outer():\n    k = 3\n    def inner(): return k\n    return inner\ninner = outer()",
    "big = torch.zeros(20_000_000)\ndef uses_big(): return big",
    "def broken(x):\n    return x.no_such\n",
    "third = lambda x: half(x) / 1.5\ntimes = __import__('functools').partial(helper, 5.0)",
    "%%time\n\ndef timed(x):\n    return half(x)\nlate = lambda x: x + 2",
    "%time quick = lambda x: x + 1",
    "unnamed = [lambda x: x + 3]\ntwo = [lambda x: x, lambda x: 1]",
]
SCRIPT = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in {cells!r}:
    assert shell.run_cell(cell, store_history=True).success, cell
shell.run_cell('''
import builtins, pickle, torch, types
from minillm.course.source import SENT, CannotSend, from_function

def sent(function, *name):
    source = from_function(function, *name)
    module = types.ModuleType("sent")
    module.__dict__[SENT] = lambda name: pickle.loads(source.values[name])
    exec(source.text, module.__dict__)
    return source, getattr(module, source.function)

source, again = sent(f_before)
x = torch.tensor([-1.0, 0.0, 1.0])
assert torch.equal(again(x), f_before(x)), source.text
assert "unused" not in source.text and "open" not in source.text, source.text
line = source.text[: source.text.index("return F.relu")].count(chr(10)) + 1
assert source.place(line) == "line 5", source.place(line)
line = source.text[: source.text.index("return half(x)")].count(chr(10)) + 1
assert source.place(line) == "line 4 of the cell with helper", source.place(line)
assert sent(f)[1](0) == "a later one"
assert sent(Box)[1](6).get() == 3
assert sent(Config)[1]().width == 4
assert sent(third, "third")[1](3.0) == 1.0
assert sent(third, "answer")[1](3.0) == 1.0
assert sent(times, "answer")[1]() == 5.0
source, again = sent(timed)
line = source.text[: source.text.index("return half")].count(chr(10)) + 1
assert again(3.0) == 1.5 and source.place(line) == "line 4", source.place(line)
assert sent(late, "late")[1](1) == 3
assert sent(quick, "quick")[1](1) == 2
assert sent(unnamed[0], "answer")[1](1) == 4
for function, words in ((uses_file, "`unused`, a TextIOWrapper"), (inner, "inside another function"),
                        (uses_big, "`big` of your notebook, 80 MB"), (f_before(x), "leave out the call"),
                        (exec, "takes your function itself"),
                        (two[1], "give your lambda a name of its own"),
                        (from_function, "from_function is minillm's own function; a check takes yours")):
    try:
        from_function(function)
    except CannotSend as problem:
        assert words in str(problem), problem
    else:
        raise AssertionError(words)
''').raise_error()
print("all well")
"""


def test_from_a_live_notebook(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(cells=CELLS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "IPYTHONDIR": str(tmp_path), "HOME": str(tmp_path)},
        check=False,
    )
    assert run.stdout.endswith("all well\n"), run.stdout + run.stderr


def helper_of_this_module() -> int:
    return len(str(ROOT)) * 0 + 7


def test_a_function_of_a_module_takes_its_module_along() -> None:
    source = from_function(helper_of_this_module)
    assert source.home == __name__ and list(source.values) == ["ROOT"]


def test_from_cells_takes_what_is_needed_and_no_more() -> None:
    cells = [
        "import torch\nimport math as m\nfrom math import *",
        "while True: pass",
        "not python at all",
        "%matplotlib inline\nA = 1\nB = A + 1\nUNUSED = forever()",
        "if A:\n    def helper(x):\n        return x + B",
        "def f(x):\n    raise NotImplementedError",
        textwrap.dedent("""\
            print('before')
            @torch.no_grad()
            def f(x):
                A = 3
                return helper(m.floor(x)) + A + floor(0.5)
            """),
        "f(3)\ncheck('1', f)",
    ]
    source = from_cells(cells, "f")
    assert "UNUSED" not in source.text and "print" not in source.text and "while" not in source.text
    module: dict[str, object] = {}
    exec(source.text, module)
    assert module["f"](1.5) == 6  # type: ignore[operator]
    line = source.text[: source.text.index("A = 3")].count("\n") + 1
    assert source.place(line) == "line 4"


@pytest.mark.parametrize("ipython", [True, False])
def test_what_a_magic_runs_counts(monkeypatch: pytest.MonkeyPatch, ipython: bool) -> None:
    if not ipython:
        monkeypatch.setitem(sys.modules, "IPython.core.inputtransformer2", None)
    cells = ["%%time\nA = 1\n%matplotlib inline\ndef f(x):\n    return g(x) + A", "%time g = lambda x: x + 1"]
    source, module = from_cells(cells, "f"), dict[str, object]()
    exec(source.text, module)
    assert module["f"](1) == 3  # type: ignore[operator]
    assert source.place(source.text[: source.text.index("return g")].count("\n") + 1) == "line 5"


def test_a_function_that_no_cell_defines() -> None:
    with pytest.raises(CannotSend, match=r"no cell defines `f`. Code cell 2 has a syntax error at line 3"):
        from_cells(["x = 1", "y = 2\n\ndef f(x) return x"], "f")
