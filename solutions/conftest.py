"""Skip answers that are Triton kernels, and their checks, if Triton is not installed (as on macOS)."""

from itertools import pairwise

import pytest

from minillm.course.tools.interpreter import has_triton


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if has_triton():
        return
    skip = pytest.mark.skip(reason="Triton is not installed: it has no build for this system")
    # A check is the cell after its answer; nbval's items have the notebook's cells.
    for answer, check in pairwise(items):
        if "@triton.jit" in getattr(answer, "cell", {}).get("source", ""):
            answer.add_marker(skip)
            check.add_marker(skip)
