"""`Detokenizer` with every decoder of the `tokenizers` library, alone and in a Sequence, against the definition."""

import codecs
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from minillm.model.tokenizer import Detokenizer, StopStrings, Tokenizer

SPACED = ["▁hello", "▁world", "▁", "the", "▁a", "▁▁", "."]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
ALPHABET = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġthe", "ä½", "łå", "ðŁ"]
BLANKS = ["a", "  b", "c ", "   ", " d", " "]
SUFFIXED = ["fo", "x</w>", "the</w>", ".", "a</w>"]


def llama():
    return decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )


def sequence(*parts):
    return decoders.Sequence(list(parts))


def make(pieces, decoder):
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(["<s>", *pieces]))}
    backend = Backend(models.WordLevel(vocabulary, unk_token="<s>"))
    if decoder is not None:
        backend.decoder = decoder
    backend.add_special_tokens([AddedToken("<s>", special=True)])
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))


TOKENIZERS = {
    "no decoder": make(["a", "b"], None),
    "ByteLevel": make(ALPHABET, decoders.ByteLevel()),
    "[ByteLevel]": make(ALPHABET, sequence(decoders.ByteLevel())),
    "[ByteLevel, Fuse]": make(ALPHABET, sequence(decoders.ByteLevel(), decoders.Fuse())),
    "[ByteLevel, Strip]": make(ALPHABET, sequence(decoders.ByteLevel(), decoders.Strip(" ", 1, 0))),
    "[Fuse, ByteLevel]": make(ALPHABET, sequence(decoders.Fuse(), decoders.ByteLevel())),
    "ByteFallback": make(SPACED + BYTES, decoders.ByteFallback()),
    "Llama's": make(SPACED + BYTES, llama()),
    "[Llama's]": make(SPACED + BYTES, sequence(llama())),
    "[ByteFallback, Metaspace]": make(
        SPACED + BYTES, sequence(decoders.ByteFallback(), decoders.Metaspace())
    ),
    "Metaspace": make(SPACED, decoders.Metaspace()),
    "Metaspace never": make(SPACED, decoders.Metaspace(prepend_scheme="never")),
    "[Metaspace, Fuse]": make(SPACED, sequence(decoders.Metaspace(), decoders.Fuse())),
    "WordPiece": make(["fox", "##es", "the", ".", "do", "not", "'s"], decoders.WordPiece()),
    "[WordPiece]": make(["fox", "##es", "the", "."], sequence(decoders.WordPiece(cleanup=False))),
    "BPEDecoder": make(SUFFIXED, decoders.BPEDecoder()),
    "[BPEDecoder, Fuse]": make(SUFFIXED, sequence(decoders.BPEDecoder(), decoders.Fuse())),
    "CTC": make(["<pad>", "|", "h", "e", "l"], decoders.CTC()),
    "[CTC, Fuse]": make(["<pad>", "|", "h", "e", "l"], sequence(decoders.CTC(), decoders.Fuse())),
    "Fuse": make(SPACED, decoders.Fuse()),
    "Strip": make(BLANKS, decoders.Strip(" ", 1, 0)),
    "[Fuse, Strip]": make(BLANKS, sequence(decoders.Fuse(), decoders.Strip(" ", 2, 0))),
    "Replace": make(SPACED, decoders.Replace("▁", " ")),
    "[Fuse, Replace]": make(SPACED, sequence(decoders.Fuse(), decoders.Replace("▁", " "))),
}


@cache
def bytes_of_ids(name):
    """The bytes of each token of bytes, by id."""
    ids = {i: TOKENIZERS[name].id_to_piece(i) for i in range(1, TOKENIZERS[name].vocab_size)}
    if "ByteLevel" in name:
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [byte for byte in range(256) if byte not in printable]
        alphabet = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
        return {0: b"<s>"} | {i: bytes(alphabet[c] for c in piece) for i, piece in ids.items()}
    return {i: bytes([int(piece[3:5], 16)]) for i, piece in ids.items() if piece in BYTES}


@cache
def ids_of_bytes(name):
    return {data[0]: i for i, data in bytes_of_ids(name).items() if len(data) == 1}


def spell(name, data):
    return [ids_of_bytes(name)[byte] for byte in data]


def final_text(name, ids, skip, at_end=False):
    """The definition: decode the ids, after every broken byte in them was replaced by the three of U+FFFD.

    A last character that is not whole is broken only at the end, and until then it is left out.
    """
    tokenizer, mended, run = TOKENIZERS[name], [], b""

    def mend(final):
        decoder = codecs.getincrementaldecoder("utf-8")(
            "replace" if "ByteLevel" in name else "replace_each_byte"
        )
        return spell(name, decoder.decode(run, final=final).encode())

    for i in ids:
        if tokenizer.id_to_piece(i) is None or (skip and i in tokenizer.special_ids):
            continue
        if i in bytes_of_ids(name):
            run += bytes_of_ids(name)[i]
        else:
            mended, run = [*mended, *mend(final=True), i], b""
    return tokenizer.decode([*mended, *mend(final=at_end)], skip_special_tokens=False)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=25)
@given(data=st.data(), skip=st.booleans())
def test_after_each_token_all_text_is_out_that_is_final(name, data, skip):
    tokenizer = TOKENIZERS[name]
    words = st.integers(0, min(tokenizer.vocab_size, 8)).map(lambda i: [i])
    if bytes_of_ids(name):
        text = st.sampled_from(["你", "é", "🌍", "\n", " ", "a", "\ufffd"]).map(str.encode)
        some_bytes = text | st.binary(min_size=1, max_size=3)
        words = words | some_bytes.map(lambda data: spell(name, data))
    output = [i for word in data.draw(st.lists(words, max_size=8)) for i in word]
    prompt = data.draw(st.lists(st.integers(1, min(7, tokenizer.vocab_size - 1)), max_size=9))
    detokenizer = Detokenizer(tokenizer, prompt, skip)
    shown = final_text(name, prompt, skip, at_end=True)
    for n, token_id in enumerate(output, 1):
        shown += detokenizer.push(token_id)
        assert shown == final_text(name, prompt + output[:n], skip)
    assert shown + detokenizer.finish() == final_text(name, prompt + output, skip, at_end=True)


@pytest.mark.parametrize("prompt", ["▁hello", "▁a ▁a ▁a ▁a ▁a ▁a <s> <s> <s> <s> <s> <s> <s> <s> <s>"])
def test_the_first_word_after_a_prompt_keeps_its_space(prompt):
    tokenizer = TOKENIZERS["Llama's"]
    world = tokenizer.piece_to_id("▁world")
    detokenizer = Detokenizer(tokenizer, [tokenizer.piece_to_id(piece) for piece in prompt.split()])
    assert StopStrings([" wor"]).push(detokenizer.push(world)) == ("", " wor")
    assert Detokenizer(tokenizer, [tokenizer.piece_to_id("<s>")]).push(world) == "world"


def test_valid_characters_of_a_broken_run_of_bytes_stay():
    tokenizer = TOKENIZERS["Llama's"]
    ids = spell("Llama's", b"\n\xf0\x9f\x8c" + "é".encode() + b"\xff!")
    detokenizer = Detokenizer(tokenizer, [tokenizer.piece_to_id("▁a")])
    assert [detokenizer.push(i) for i in ids] == ["\n", "", "", "", "���", "é", "�", "!"]
    assert tokenizer.decode(ids) == "�" * 8


def test_a_token_alone_has_the_text_of_the_middle_of_a_text():
    tokenizer = TOKENIZERS["Llama's"]
    ids = {piece: tokenizer.piece_to_id(piece) for piece in ("▁world", "the", "<s>", "<0x0A>")}
    assert [tokenizer.token_text(i) for i in ids.values()] == [" world", "the", "<s>", "\n"]
    assert tokenizer.token_text(tokenizer.vocab_size + 7) == ""


def test_a_space_that_shares_a_token_with_half_a_character_waits_for_the_other_half():
    tokenizer = make(["a", "ĠâĢ", "ľ", "b"], decoders.ByteLevel())  # “ is the bytes E2 80 9C
    ids = [tokenizer.piece_to_id(piece) for piece in ("a", "ĠâĢ", "ľ", "b")]
    assert [tokenizer.token_text(i, ids[:n]) for n, i in enumerate(ids)] == ["a", "", " “", "b"]


@pytest.mark.parametrize("name", ["Llama's", "ByteLevel"])
def test_a_character_of_several_tokens_is_the_text_of_the_last(name):
    tokenizer = TOKENIZERS[name]
    ids = spell(name, "a🌍b".encode())
    assert [tokenizer.token_text(token_id, ids[:n]) for n, token_id in enumerate(ids)] == [
        "a",
        "",
        "",
        "",
        "🌍",
        "b",
    ]
    # A character that the sampled tokens did not begin has no text.
    assert tokenizer.token_text(ids[4], ids[:1]) == ""
