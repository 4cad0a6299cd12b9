"""The two pure decisions: admission and routing."""

import pytest

from minillm.serving.admission import LONGEST, retry_after
from minillm.serving.routing import Candidate, least_loaded, prefix_aware


@pytest.mark.parametrize(
    ("waiting", "limit", "rate", "seconds"),
    [
        (0, 1, 0.0, None),
        (9, 10, 0.001, None),
        (10, 10, 1.0, 1),
        (10, 10, 0.5, 2),
        (19, 10, 4.0, 3),  # 10 / 4 = 2.5, rounded up
        (10, 10, 1000.0, 1),
        (10, 10, 0.0, 1),
        (10**6, 10, 0.001, LONGEST),
    ],
)
def test_retry_after(waiting, limit, rate, seconds):
    found = retry_after(waiting, limit, rate)
    assert found == seconds and type(found) is type(seconds)


def test_least_loaded_counts_tokens():
    assert least_loaded([Candidate(30, 500), Candidate(20, 0)], 500) == 1
    assert least_loaded([Candidate(20, 0), Candidate(20, 16)], 500) == 1


def test_prefix_aware_weighs_the_prefix_against_the_load():
    busy_with_prefix, idle = Candidate(300, 400), Candidate(0, 0)
    assert prefix_aware([idle, busy_with_prefix], 500) == 1
    assert prefix_aware([idle, Candidate(401, 400)], 500) == 0
    assert prefix_aware([Candidate(5, 0), Candidate(5, 0), Candidate(4, 0)], 10) == 2
    assert prefix_aware([Candidate(0, 16), Candidate(0, 4096)], 16) in (0, 1)
    assert prefix_aware([Candidate(0, 16), Candidate(1, 4096)], 16) == 0  # no more than the prompt is saved
