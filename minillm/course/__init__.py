"""The course's machinery: what a notebook calls to check an answer, to ask for a hint, to keep the marks."""

import os

from minillm.course.check import check
from minillm.course.hints import hint

os.environ.setdefault("TQDM_DISABLE", "1")  # a progress bar in a stored output would differ on every run

__all__ = ["check", "hint"]
