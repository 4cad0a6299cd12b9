"""The shown source is what is in the file."""

from pathlib import Path

import pytest

from minillm.course import show
from minillm.engine.scheduler import Scheduler


def test_a_method_is_shown_below_its_file() -> None:
    text = show.source(Scheduler.schedule)._repr_mimebundle_()["text/markdown"]
    assert text.startswith(
        "`minillm/engine/scheduler.py` · `Scheduler.schedule`\n```python\ndef schedule(self"
    )
    assert text.endswith("\n```")


def test_decorators_are_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("class A:\n    @property\n    def x(self):\n        return 1\n    y = 2\n")
    assert show.extract(file, "A.x") == "@property\ndef x(self):\n    return 1"
    file.write_text("class A:\n    async def x(self):\n        return 1\n")
    assert show.extract(file, "A.x") == "async def x(self):\n    return 1"
    with pytest.raises(LookupError, match=r"a.py has no A.z"):
        show.extract(file, "A.z")


def test_a_part_of_a_module_that_is_not_imported() -> None:
    text = show.source("kernels/flash_attention.py:_attend")._repr_mimebundle_()
    assert text["text/markdown"].startswith(
        "`minillm/kernels/flash_attention.py` · `_attend`\n```python\n@triton.jit"
    )
    assert text["text/plain"] == "_attend"
