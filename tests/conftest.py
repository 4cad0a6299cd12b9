"""Set up every test: no network, one thread per worker, the rules for `slow` and `gpu`, Hypothesis's profiles."""

import os
import sys
import tempfile
from pathlib import Path

# Read by the libraries when they are imported, hence before any of them is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
# Marks that tests earn are not the user's.
os.environ["MINILLM_DATA"] = str(Path(tempfile.gettempdir()) / f"minillm-test-data-{os.getuid()}")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers that each start a thread a core spend their time waiting for one another.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import hypothesis
import pytest

# ci: the same examples in every run, and no deadline, since a shared machine stalls when it likes.
# search: new examples in every run, many of them: `pytest --hypothesis-profile=search`.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("search", max_examples=2000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu`, with the reason, where there is no CUDA device. `slow` is left to `-m`."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason=f"needs a CUDA device; torch {torch.__version__} sees none")
        for item in marked:
            item.add_marker(skip)


def pytest_report_header() -> str:
    return f"executable: {sys.executable}"
