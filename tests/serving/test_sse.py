from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.serving.sse import DONE, EventReader, event


def test_an_event_on_the_wire():
    assert event("hello") == b"data: hello\n\n"
    assert event("two\nlines") == b"data: two\ndata: lines\n\n"
    assert event("") == b"data: \n\n"
    assert event(DONE) == b"data: [DONE]\n\n"


def pieces(data, cuts):
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(
    st.lists(st.text(alphabet="a: é漢\n\t")),
    st.lists(st.integers(0, 10**6)),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_any_division_into_chunks_gives_the_same_events(texts, cuts, end):
    data = b"".join(map(event, texts)).replace(b"\n", end.encode())
    reader = EventReader()
    assert [found for piece in pieces(data, cuts) for found in reader.feed(piece)] == texts


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b": a comment\n\ndata: x\n\n", ["x"]),
        (b"event: ping\nid: 3\ndata: x\nretry: 5\n\n", ["x"]),
        (b"data:x\n\n", ["x"]),
        (b"data:  x\n\n", [" x"]),
        (b"data\n\n", [""]),
        (b"\xef\xbb\xbfdata: x\n\n", ["x"]),
        (b"data: not complete\n", []),
        (b"data: x\n\n\n\n\ndata: y\n\n", ["x", "y"]),
    ],
)
def test_the_standard(data, events):
    assert EventReader().feed(data) == events
    reader = EventReader()
    assert [one for byte in data for one in reader.feed(bytes([byte]))] == events
