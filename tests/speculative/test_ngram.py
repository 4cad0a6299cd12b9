"""Prompt lookup against its definition, written without arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.speculative.ngram import NGram


def definition(ids, limit, shortest, longest):
    """Return the tokens after the last place of the longest match that `limit` tokens follow, else after the first."""
    for length in range(longest, shortest - 1, -1):
        ends = [
            end
            for end in range(length - 1, len(ids) - 1)
            if ids[end + 1 - length : end + 1] == ids[len(ids) - length :]
        ]
        if ends and length <= len(ids):
            enough = [end for end in ends if end + limit < len(ids)]
            start = (enough[-1] if enough else ends[0]) + 1
            return ids[start : start + limit]
    return []


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_it_follows_its_definition(ids, limit, shortest, more):
    found = NGram(shortest, shortest + more)(ids, limit)
    assert found == definition(ids, limit, shortest, shortest + more)
    assert all(type(token_id) is int for token_id in found)


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("the cat sat. the cat", 4, " sat"),
        ("abcabxab", 2, "xa"),  # two places: the later one
        ("abcdefabcxabc", 3, "xab"),
        ("abab", 3, "ab"),  # nothing but its own tokens follows
        ("aaaa", 2, "a"),
        ("abcd", 4, ""),  # nothing occurs twice
        ("xbcd.abcd", 4, ".abc"),  # three tokens match
        ("a", 4, ""),
    ],
)
def test_examples(text, limit, expected):
    found = NGram(2, 3)([ord(c) for c in text], limit)
    assert "".join(map(chr, found)) == expected


def test_a_match_needs_its_shortest_length():
    ids = [1, 2, 3, 9, 2, 3]
    assert NGram(2, 4)(ids, 2) == [9, 2] and NGram(3, 4)(ids, 2) == []


def test_it_reads_any_sequence_and_changes_none():
    ids = [5, 6, 7, 5, 6]
    assert NGram()(tuple(ids), 2) == NGram()(np.array(ids), 2) == NGram()(ids, 2) == [7, 5]
    assert ids == [5, 6, 7, 5, 6]
