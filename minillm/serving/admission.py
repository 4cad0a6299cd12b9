"""Admission: whether a new request may join the queue, and when to try again if not.

A queue without a limit answers every request, and under overload each one later than the last. With a limit, an
admitted request waits a bounded time, and the others learn at once that they must come back.
"""

import math

LONGEST = 60  # seconds; the load a minute from now is unknown


def retry_after(num_waiting: int, max_num_waiting: int, finished_per_second: float) -> int | None:
    """Return None to admit a request, else the seconds for the header Retry-After: whole, and at least 1.

    The queue is below its limit again once the requests above it have been replaced, one for each that finishes. A rate
    of 0 means that none has been measured.
    """
    if num_waiting < max_num_waiting:
        return None
    too_many = num_waiting - max_num_waiting + 1
    if finished_per_second <= 0:
        return 1
    return max(1, math.ceil(min(LONGEST, too_many / finished_per_second)))
