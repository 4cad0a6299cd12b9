import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.errors import RequestError
from minillm.model.bad_words import TokenTexts, forbid_words
from tests.model.test_detokenizer import TOKENIZERS, spell

letters = st.text("abé", min_size=1, max_size=4)
pieces = st.lists(
    letters.map(str.encode) | st.sampled_from([b"", b"\xc3", b"\xa9", b"a\xc3"]), min_size=1, max_size=12
)


@given(pieces, st.lists(letters, min_size=1, max_size=3), st.data())
def test_just_the_tokens_that_complete_a_word_are_forbidden(texts, words, data):
    output = data.draw(st.lists(st.integers(0, len(texts) + 1), max_size=6))
    before = b"".join(texts[i] for i in output if i < len(texts))
    expected = {
        i
        for i, text in enumerate(texts)
        if any(w.encode() in (before + text)[max(0, len(before) - len(w.encode()) + 1) :] for w in words)
    }
    forbidden = forbid_words(TokenTexts(texts), words)(output)
    assert set(forbidden.tolist()) == expected


@settings(max_examples=20)
@pytest.mark.parametrize("name", ["Llama's", "ByteLevel", "[ByteFallback, Metaspace]"])
@given(data=st.data())
def test_no_spelling_of_a_bad_word_comes_through(name, data):
    """Append any allowed token, again and again. The text never contains the word."""
    tokenizer, words = TOKENIZERS[name], ["the", " wor", "你"]
    forbidden = tokenizer.forbid_words(words)
    wanted = st.sampled_from(
        [*spell(name, "the world 你".encode()), *map(tokenizer.piece_to_id, SPELLINGS[name])]
    )
    output = []
    for token_id in data.draw(st.lists(wanted, max_size=30)):
        if token_id not in forbidden(output):
            output.append(token_id)
    text = tokenizer.decode(output)
    assert not any(word.strip() in text for word in words)


SPELLINGS = {
    "Llama's": ["▁hello", "▁world", "▁", "the", "▁a"],
    "ByteLevel": ["Ġthe", "ä½", "łå", "Ġ"],
    "[ByteFallback, Metaspace]": ["▁hello", "▁world", "▁", "the", "▁a"],
}


def test_a_word_counts_with_any_space_before_it():
    tokenizer = TOKENIZERS["Llama's"]
    the, tab, a = tokenizer.piece_to_id("the"), *spell("Llama's", b"\ta")
    for word in ("the", " the", "\nthe"):
        assert the in tokenizer.forbid_words([word])([tab])
    assert a not in tokenizer.forbid_words(["the"])([the])


def test_a_special_token_is_forbidden_by_its_name_only():
    tokenizer = TOKENIZERS["ByteLevel"]
    assert tokenizer.forbid_words(["<s>"])([]).tolist() == [0]
    assert 0 not in tokenizer.forbid_words(["s"])([])


def test_a_word_that_no_text_holds_is_refused():
    with pytest.raises(RequestError, match="lone surrogate"):
        TOKENIZERS["ByteLevel"].forbid_words(["\ud800"])
