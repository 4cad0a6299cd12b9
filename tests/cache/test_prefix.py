from array import array
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from minillm.cache.prefix import PrefixCache, block_hash

TOKENS = st.lists(st.integers(0, 2), max_size=12)  # few ids, so that texts often begin alike


def hashes(cache, tokens):
    found = []
    cache.extend(found, tokens)
    return found


def common(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@given(TOKENS, TOKENS, st.integers(1, 4))
def test_two_texts_share_as_many_hashes_as_they_share_full_blocks(one, other, size):
    cache = PrefixCache(size)
    a, b = hashes(cache, one), hashes(cache, other)
    assert (len(a), len(b)) == (len(one) // size, len(other) // size)
    assert common(a, b) == common(one, other) // size


def test_a_hash_depends_on_what_came_before_and_on_how_it_is_cut():
    cache = PrefixCache(2)
    same_tokens = hashes(cache, [1, 2, 1, 2])
    assert same_tokens[0] != same_tokens[1]
    assert block_hash(cache.root, [1, 2]) != block_hash(cache.root, [1, 2, 0])
    assert block_hash(cache.root, [1, 256]) != block_hash(cache.root, [257, 0])
    assert hashes(PrefixCache(2, seed=1), [1, 2]) != same_tokens[:1]
    root = sha256(bytes(8)).digest()
    assert same_tokens[0] == sha256(root + array("q", [1, 2]).tobytes()).digest()


@given(TOKENS, st.integers(0, 12), st.integers(1, 4))
def test_hashes_may_be_completed_as_the_text_grows(tokens, cut, size):
    cache, grown = PrefixCache(size), []
    cache.extend(grown, tokens[:cut])
    cache.extend(grown, tokens)
    assert grown == hashes(cache, tokens)


@given(st.lists(TOKENS, min_size=1, max_size=4), TOKENS, st.integers(1, 3), st.sets(st.integers(0, 20)))
def test_a_match_is_the_longest_known_prefix_without_a_gap(texts, asked, size, forgotten):
    cache, known, blocks = PrefixCache(size), {}, iter(range(99))
    for text in texts:
        for i, name in enumerate(hashes(cache, text)):
            block = next(blocks)
            assert cache.publish(block, name) and not cache.publish(block, name)
            known.setdefault(tuple(text[: (i + 1) * size]), []).append(block)
    for prefix, copies in list(known.items()):
        for block in forgotten.intersection(copies):
            cache.forget(block)
            copies.remove(block)
            assert block not in cache
        if not copies:
            del known[prefix]
    assert len(cache) == sum(map(len, known.values()))
    assert all(block in cache for copies in known.values() for block in copies)
    expected = []
    for end in range(size, len(asked) + 1, size):
        if tuple(asked[:end]) not in known:
            break
        expected.append(known[tuple(asked[:end])][0])
    assert cache.match(hashes(cache, asked)) == expected
