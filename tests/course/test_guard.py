"""The guard limits the parts of minillm that an answer may use, under any name."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minillm import store
from minillm.course.exercise import Wrong
from minillm.course.guard import OwnWork
from minillm.errors import MinillmError

PATH = Path("answer.py")
REFUSED = "uses minillm.store.set_aside, which is what you are writing"


@pytest.fixture
def run(tmp_path: Path) -> Any:
    (tmp_path / "file").write_text("text")

    def call(body: str, uses: tuple[str, ...] | None) -> Any:
        module = ModuleType("__main__")
        exec(compile(f"def answer(path):\n    {body}\n", str(PATH), "exec"), vars(module))
        with OwnWork(PATH, uses).watched():
            return module.answer(tmp_path / "file")

    return call


@pytest.mark.parametrize(
    "body",
    [
        "from minillm.store import set_aside as mine; return mine(path)",
        "import sys; return sys.modules['minillm.store'].set_aside(path)",
        "import importlib; return importlib.import_module('minillm.store').set_aside(path)",
        "from minillm.store import set_aside; return list(map(set_aside, [path]))[0]",
        "from minillm.store import set_aside\n    try: return set_aside(path)\n    except BaseException: return path",
    ],
)
def test_a_function_of_the_package_is_refused_and_may_be_allowed(run: Any, body: str) -> None:
    with pytest.raises(Wrong, match=REFUSED):
        run(body, ())
    with pytest.raises(Wrong, match=REFUSED):
        run(body, ("minillm.store.set", "minillm.ops"))
    for uses in (None, ("minillm.store",), ("minillm.store.set_aside",)):
        assert run(body, uses).name.startswith("file")


def test_what_the_package_calls_itself_is_its_own_affair(run: Any) -> None:
    body = "from minillm.store import records; return records(type(path), {})"
    assert run(body, ("minillm.store.records",)) == ({}, "")


def test_an_answer_made_from_a_class_of_the_package_is_refused() -> None:
    own_work = OwnWork(PATH, ())
    own_work.require(type("Mine", (list,), {}))
    with pytest.raises(Wrong, match=REFUSED):
        own_work.require(store.set_aside)
    with pytest.raises(Wrong, match=r"uses minillm\.errors\.MinillmError"):
        own_work.require(type("Mine", (MinillmError,), {}))
