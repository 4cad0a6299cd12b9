"""The holes of chapter 09: other right answers pass, and each wrong answer is told what is wrong with it."""

from collections.abc import Callable
from typing import Any

import pytest

from minillm.course.exercise import Wrong
from minillm.course.holes.ch09 import chain, check_chain, check_reused, reused


def recursive(token_ids, size, root, block_hash):
    if len(token_ids) < size:
        return []
    name = block_hash(root, token_ids[:size])
    return [name, *recursive(token_ids[size:], size, name, block_hash)]


def by_index(token_ids, size, root, block_hash):
    names = []
    for i in range(len(token_ids) // size):
        parent = names[i - 1] if i else root
        names.append(block_hash(parent, tuple(token_ids[i * size : (i + 1) * size])))
    return names


def with_root(token_ids, size, root, block_hash):
    return [root, *chain(token_ids, size, root, block_hash)]


def partial_too(token_ids, size, root, block_hash):
    names = [root]
    for start in range(0, len(token_ids), size):
        names.append(block_hash(names[-1], token_ids[start : start + size]))
    return names[1:]


def one_too_few(token_ids, size, root, block_hash):
    names = [root]
    for start in range(0, len(token_ids) - size, size):
        names.append(block_hash(names[-1], token_ids[start : start + size]))
    return names[1:]


def no_chain(token_ids, size, root, block_hash):
    starts = range(0, len(token_ids) - size + 1, size)
    return [block_hash(root, token_ids[start : start + size]) for start in starts]


def whole_prefixes(token_ids, size, root, block_hash):
    starts = range(0, len(token_ids) - size + 1, size)
    return [block_hash(root, token_ids[: start + size]) for start in starts]


def chained_prefixes(token_ids, size, root, block_hash):
    names = [root]
    for start in range(0, len(token_ids) - size + 1, size):
        names.append(block_hash(names[-1], token_ids[: start + size]))
    return names[1:]


def per_token(token_ids, size, root, block_hash):
    names = [root]
    for token in token_ids:
        names.append(block_hash(names[-1], [token]))
    return names[1:]


def only_the_last(token_ids, size, root, block_hash):
    return chain(token_ids, size, root, block_hash)[-1:]


def no_return(token_ids, size, root, block_hash):
    chain(token_ids, size, root, block_hash)


@pytest.mark.parametrize("answer", [chain, recursive, by_index])
def test_right_chains_pass(answer: Callable[..., Any]) -> None:
    check_chain(answer)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (with_root, "begins with `root`"),
        (partial_too, "not full"),
        (one_too_few, "A full block at the end"),
        (no_chain, "Every block has `root`"),
        (whole_prefixes, "covers all tokens up to its block"),
        (chained_prefixes, "all tokens so far"),
        (per_token, "for each token"),
        (only_the_last, "Only the last name"),
        (no_return, "return"),
        (lambda token_ids, size, root, block_hash: [root] * (len(token_ids) // size), "should be"),
    ],
)
def test_wrong_chains_are_named(answer: Callable[..., Any], words: str) -> None:
    with pytest.raises(Wrong, match=words):
        check_chain(answer)


def block_by_block(num_tokens: int, num_known: int, size: int) -> int:
    tokens = 0
    while tokens < num_known * size and tokens + size < num_tokens:
        tokens += size
    return tokens


def step_back(num_tokens: int, num_known: int, size: int) -> int:
    return num_known * size if num_known * size < num_tokens else (num_known - 1) * size


@pytest.mark.parametrize("answer", [reused, block_by_block, step_back])
def test_right_numbers_of_reused_tokens_pass(answer: Callable[..., Any]) -> None:
    check_reused(answer)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda num_tokens, num_known, size: num_known * size, "none is computed"),
        (lambda num_tokens, num_known, size: min(num_known, num_tokens // size) * size, "none is computed"),
        (lambda num_tokens, num_known, size: min(num_known * size, num_tokens - 1), "part of a block"),
        (lambda num_tokens, num_known, size: max(0, num_known - 1) * size, "always left out"),
        (lambda num_tokens, num_known, size: (num_tokens - 1) // size * size, "not known"),
        (lambda num_tokens, num_known, size: min(num_known, (num_tokens - 1) // size), "It counts blocks"),
        (
            lambda num_tokens, num_known, size: num_tokens - reused(num_tokens, num_known, size),
            "left to compute",
        ),
        (lambda num_tokens, num_known, size: None, "return"),
        (lambda num_tokens, num_known, size: num_known, "counts blocks"),
    ],
)
def test_wrong_numbers_of_reused_tokens_are_named(answer: Callable[..., Any], words: str) -> None:
    with pytest.raises(Wrong, match=words):
        check_reused(answer)
