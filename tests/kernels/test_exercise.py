"""Exercise 05.4's kernel around a learner's loop, compiled without a GPU: the check only interprets it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from minillm.course import notebook as nb
from minillm.course.source import from_cells
from tests.kernels.offline import ARCHITECTURES, Compiled

ROOT = Path(__file__).parents[2]
# Tensor cores multiply no float32 exactly: an answer whose dots are in float32 is right without them.
RIGHT = [
    path
    for path in sorted((ROOT / "tests/exercises/right/ch05").glob("walk_*.py"))
    if path.stem != "walk_float32_dots"
]


def launch(path: str) -> None:
    """The kernel on the `walk` of a file, on tensors of the device meta."""
    import torch

    from minillm.course.checks.ch05_kernel import attention_by

    spec = importlib.util.spec_from_file_location("answer", path)
    assert spec is not None and spec.loader is not None
    answer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(answer)
    q, k, v = (torch.empty(4096, 64, device="meta", dtype=torch.float16) for _ in range(3))
    attention_by(answer.walk, q, k, v, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("answer", ["the solution", *RIGHT], ids=lambda answer: Path(answer).stem)
def test_a_loop_compiles_to_tensor_cores(
    compiled: Callable[..., list[Compiled]], tmp_path: Path, answer: str | Path, architecture: int
) -> None:
    if answer == "the solution":
        notebook = nb.read(ROOT / "solutions/05_flash_attention.ipynb")
        answer = tmp_path / "walk.py"
        answer.write_text(from_cells(nb.code_cells(notebook), "walk").text)
    (kernel,) = compiled(launch, {"path": str(answer)}, architecture)
    assert kernel.tensor_core_instructions and not kernel.spills
