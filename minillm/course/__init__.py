"""The course's own tools: checks of answers, hints, marks, and the learner's copies of the notebooks."""

import os

from minillm.course.check import check
from minillm.course.hints import hint

os.environ.setdefault("TQDM_DISABLE", "1")  # a progress bar in a stored output would differ on every run

__all__ = ["check", "hint"]
