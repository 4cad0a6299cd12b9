"""The course's machinery: what a notebook calls to check an answer, to ask for a hint, to keep the marks."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # a stored output with a progress bar differs on every run

from minillm.course.check import check
from minillm.course.hints import hint

__all__ = ["check", "hint"]
