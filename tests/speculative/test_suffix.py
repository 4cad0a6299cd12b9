"""Suffix decoding against its definition: counts, the longest suffix, the walk, and its limits."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.engine.proposer import Computed, Part
from minillm.engine.request import Status
from minillm.speculative.suffix import Node, Suffix, SuffixTree, walk

texts = st.lists(st.lists(st.integers(0, 2), max_size=14), min_size=1, max_size=3)


def tree_of(texts, max_depth):
    tree = SuffixTree(max_depth)
    states = [tree.start() for _ in texts]
    for i in range(max(map(len, texts), default=0)):  # alternately, as requests of one batch grow
        for state, text in zip(states, texts, strict=True):
            if i < len(text):
                tree.append(state, text[i])
    return tree


def counts_of(node, before=()):
    """Return the count of every run of tokens in the tree."""
    found = {before: node.count} if before else {}
    for token_id, child in node.children.items():
        found |= counts_of(child, (*before, token_id))
    return found


def runs(texts, max_depth):
    """Return how often each run of at most `max_depth` tokens occurs: the definition of the tree."""
    return Counter(
        tuple(text[i : i + length])
        for text in texts
        for length in range(1, max_depth + 1)
        for i in range(len(text) - length + 1)
    )


@given(texts, st.integers(1, 5))
def test_the_tree_counts_every_run(texts, max_depth):
    assert counts_of(tree_of(texts, max_depth).root) == runs(texts, max_depth)


@given(texts, st.lists(st.integers(0, 2), max_size=8), st.integers(1, 5))
def test_the_longest_suffix_that_something_followed_is_found(texts, ending, max_depth):
    counts = runs(texts, max_depth)
    node, length = tree_of(texts, max_depth).match(ending)
    followed = {run[:-1] for run in counts if len(run) > 1}
    longest = max((n for n in range(1, len(ending) + 1) if tuple(ending[-n:]) in followed), default=0)
    assert length == longest
    assert not longest or node.count == counts[tuple(ending[-longest:])]


@given(texts, st.integers(0, 6), st.sampled_from([0.0, 0.1, 0.4, 0.6, 1.0]))
def test_the_walk_takes_the_most_frequent_tokens_while_they_are_probable(texts, limit, least):
    counts = runs(texts, 5)
    found, expected = walk(tree_of(texts, 5).root, limit, least)
    total, prob = 0.0, 1.0
    assert len(found) <= limit
    for i, token_id in enumerate(found):
        after = {run[-1]: n for run, n in counts.items() if run[:-1] == tuple(found[:i])}
        assert after[token_id] == max(after.values())
        prob *= after[token_id] / sum(after.values())
        assert prob >= least
        total += prob
    assert expected == pytest.approx(total)
    if len(found) < min(limit, 5):  # the next token is too improbable, or nothing followed
        after = [n for run, n in counts.items() if run[:-1] == tuple(found)]
        assert not after or prob * max(after) / sum(after) < least


class Text:
    """A request as the proposer sees it."""

    def __init__(self, prompt, output=()):
        self.token_ids, self.num_prompt_tokens = [*prompt, *output], len(prompt)
        self.status = Status.RUNNING

    @property
    def num_tokens(self):
        return len(self.token_ids)


def drafts(proposer, *requests, limit=4):
    parts = [Part(request, 0, 0, limit) for request in requests]
    return [one.token_ids for one in proposer.propose(Computed(parts, None, 0.0))]


def test_a_draft_is_no_longer_than_the_suffix_that_matched():
    text = Text([1, 2, 3, 4, 5, 6, 7, 8, 1, 2])
    assert drafts(Suffix(4), text) == [[3, 4]]
    assert drafts(Suffix(4, max_spec_factor=2.0), text) == [[3, 4, 5, 6]]
    assert drafts(Suffix(4, max_spec_factor=2.0), text, limit=3) == [[3, 4, 5]]
    assert drafts(Suffix(4), Text([1, 2, 3])) == [[]]


def test_it_stops_where_the_counts_are_not_clear():
    """After 1, 2 came 3 twice and 4 once: 3 is drafted with 2/3, and 9 after it with 2/3 * 1/2."""
    text = Text([1, 2, 3, 9, 1, 2, 4, 7, 1, 2, 3, 8, 1, 2])
    for least, expected in ((0.7, []), (0.5, [3]), (0.3, [3, 9])):
        assert drafts(Suffix(4, min_token_prob=least), text) == [expected]


def test_it_learns_from_other_requests_outputs_but_not_from_their_prompts():
    proposer = Suffix(4)
    teacher = Text([1, 2, 3, 4], [5, 6, 7, 8, 9])
    drafts(proposer, teacher)
    assert drafts(proposer, Text([11, 5, 6, 7])) == [[8, 9]]
    assert drafts(proposer, Text([11, 1, 2, 3])) == [[]]


def test_tokens_are_counted_once_although_they_are_read_in_many_steps():
    proposer, text = Suffix(4), Text([1], [2])
    for token_id in (3, 1, 2, 3, 1):
        drafts(proposer, text)
        text.token_ids.append(token_id)
    drafts(proposer, text)
    assert counts_of(proposer._outputs.root) == runs([text.token_ids[1:]], 24)
    assert counts_of(proposer._seen[id(text)].tree.root) == runs([text.token_ids], 24)


def test_the_tree_of_all_outputs_starts_again_and_finished_requests_are_forgotten():
    proposer = Suffix(4, max_cached_tokens=6)
    first, second = Text([], [1, 2, 3, 4, 5, 6]), Text([], [9, 8])
    drafts(proposer, first)
    drafts(proposer, second)  # the tree is full, so it begins with this request
    assert counts_of(proposer._outputs.root) == runs([[9, 8]], 24)
    first.token_ids.append(7)
    drafts(proposer, first)
    assert counts_of(proposer._outputs.root) == runs([[9, 8], [7]], 24)
    first.status = Status.FINISHED
    drafts(proposer, second)
    assert [seen.request for seen in proposer._seen.values()] == [second]


def test_a_part_without_a_limit_gets_no_draft():
    assert drafts(Suffix(4), Text([1, 2, 1]), limit=0) == [[]]


def test_an_empty_tree_has_nothing_to_walk():
    assert walk(Node(), 4, 0.1) == ([], 0.0)
