"""Chapter 13, serving: its exercises. Each one's checks are in a file of their own."""

from minillm.course.checks import (  # noqa: F401 – they add their parts to the exercises
    ch13_abort,
    ch13_admission,
    ch13_events,
    ch13_route,
    ch13_stop,
)
from minillm.course.exercises.ch13 import ABORT, ADMISSION, EVENT_STREAM, ROUTE, STOP_STRINGS

__all__ = ["ABORT", "ADMISSION", "EVENT_STREAM", "ROUTE", "STOP_STRINGS"]
