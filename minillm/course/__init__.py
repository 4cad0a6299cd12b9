"""The course's machinery: what a notebook calls to check an answer, to ask for a hint, to keep the marks."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # a stored output with a progress bar differs on every run

from minillm.course.check import check  # noqa: E402 – tqdm reads the variable when it is imported
from minillm.course.hints import hint  # noqa: E402

__all__ = ["check", "hint"]
