"""The course's machinery: what a notebook calls to check an answer, to ask for a hint, to keep the marks."""

from minillm.course.check import check
from minillm.course.hints import hint

__all__ = ["check", "hint"]
