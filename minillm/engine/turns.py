"""A fair lock: several engines on the same CPU run their steps alternately.

torch uses all cores for one operation, so two steps at the same time only slow each other down. A plain lock is not
fair: the thread that releases it usually gets it again at once. This one goes to the thread that has waited longest.
"""

from collections import deque
from threading import Lock


class Turns:
    """`with turns:` runs one thread at a time, in the order of arrival."""

    def __init__(self) -> None:
        self._guard, self._busy = Lock(), False
        self._waiting: deque[Lock] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._busy:
                self._busy = True
                return
            mine = Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # `__exit__` of the thread before releases it, and the lock stays busy

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._busy = False
