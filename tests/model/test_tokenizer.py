import json
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from minillm.errors import CheckpointError, RequestError
from minillm.model.tokenizer import Detokenizer, StopStrings, Tokenizer, load_tokenizer

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "once upon a time, a café naïve",
    "def f(x):\n    return x",
] * 3
TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)


def byte_level():
    """As GPT-2, Llama 3 and Qwen have it."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"], show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.add_tokens([AddedToken("plain added"), AddedToken("漢é")])
    return backend


def byte_fallback(decoder):
    """As Llama 2 and Mistral have it: spaces as ▁, and <0x..> for the bytes of characters never seen."""
    backend = Backend(models.BPE(unk_token="<unk>", byte_fallback=True))
    special = ["<unk>", "<s>", "</s>"]
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=special + every_byte, show_progress=False)
    backend.train_from_iterator([text.replace(" ", "▁") for text in TEXTS], trainer)
    content = json.loads(backend.to_str())
    # The trainer makes special tokens of the bytes too; in a real vocabulary they are ordinary ones.
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special]
    backend = Backend.from_str(json.dumps(content))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoder
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend


def wrap(backend, **options):
    return Tokenizer(
        PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", **options)
    )


LLAMA_2 = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)
TOKENIZERS = {
    "byte-level": wrap(byte_level(), chat_template=TEMPLATE),
    "llama 2": wrap(byte_fallback(LLAMA_2), chat_template=TEMPLATE),
    "metaspace": wrap(byte_fallback(decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]))),
}
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


def stream(tokenizer, ids):
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.finish()]


# ---- Tokenizer ----


@every_tokenizer
@pytest.mark.parametrize("text", ["the lazy fox", "two  spaces ", "漢字 😀 naïve\n", ""])
def test_text_survives_encoding(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_stand_around_the_text_only_when_asked():
    tokenizer = TOKENIZERS["llama 2"]
    assert tokenizer.encode("fox")[0] == tokenizer.bos_token_id == 1
    assert tokenizer.encode("fox", add_special_tokens=False) == tokenizer.encode("fox")[1:]
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.decode([1, 2]) == ""
    assert tokenizer.decode([1, 2], skip_special_tokens=False) == "<s></s>"


@every_tokenizer
def test_ids_and_pieces(tokenizer):
    assert tokenizer.id_to_piece(tokenizer.eos_token_id) == "</s>"
    assert tokenizer.id_to_piece(tokenizer.vocab_size - 1) is not None
    assert tokenizer.id_to_piece(tokenizer.vocab_size) is None
    assert tokenizer.decode([tokenizer.vocab_size]) == ""


def test_a_hole_in_the_vocabulary_hides_no_token():
    tokenizer = wrap(Backend(models.WordLevel({"a": 0, "<s>": 1, "</s>": 2, "b": 9}, unk_token="a")))
    assert tokenizer.vocab_size == 10
    assert "".join(stream(tokenizer, [0, 5, 9])) == tokenizer.decode([0, 5, 9]) == "a b"


def test_a_conversation_ends_where_the_answer_begins():
    for name in ("byte-level", "llama 2"):
        tokenizer = TOKENIZERS[name]
        ids = tokenizer.apply_chat_template([{"role": "user", "content": "a fox"}])
        assert ids.count(tokenizer.bos_token_id) == 1
        text = tokenizer.decode(ids, skip_special_tokens=False)
        assert text.replace(" ", "") == "<s>user:afox\nA:"


def test_without_a_chat_template_the_way_out_is_named():
    with pytest.raises(RequestError, match=r"no chat template.*Use generate"):
        TOKENIZERS["metaspace"].apply_chat_template([{"role": "user", "content": "hi"}])


def test_a_folder_is_loaded_with_its_template(tmp_path):
    backend = byte_level()
    backend.enable_truncation(3)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    ).save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    message = [{"role": "user", "content": "hello there, you quick fox"}]
    assert loaded.apply_chat_template(message) == TOKENIZERS["byte-level"].apply_chat_template(message)
    assert (loaded.eos_token_id, loaded.vocab_size) == (1, TOKENIZERS["byte-level"].vocab_size)


def test_a_folder_with_tokenizer_json_alone_will_do(tmp_path):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode("the fox") == TOKENIZERS["byte-level"].encode("the fox")


def test_a_folder_without_a_tokenizer_gives_none(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert load_tokenizer(tmp_path) is None


def saved(folder, **tokenizer_config):
    PreTrainedTokenizerFast(tokenizer_object=byte_level(), bos_token="<s>", eos_token="</s>").save_pretrained(
        folder
    )
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **tokenizer_config}))
    return folder


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        (
            "tokenizer.json",
            '{"version": "1.0", "mod',
            r"tokenizer\.json is not readable JSON.*Download the file again",
        ),
        ("tokenizer.json", "[]", r"tokenizer\.json holds a JSON list"),
        ("tokenizer.json", "{}", r"cannot be loaded from .*tokenizer\.json.* KeyError.*Download"),
        (
            "tokenizer.json",
            '{"model": {"type": "BPE"}, "added_tokens": []}',
            r"cannot be loaded from .*tokenizer\.json",
        ),
        ("tokenizer.json", b"\xff\xfe", r"tokenizer\.json is not readable JSON"),
        ("tokenizer_config.json", "{", r"tokenizer_config\.json is not readable JSON"),
        (
            "tokenizer_config.json",
            '{"tokenizer_class": 3}',
            r"cannot be loaded from .*tokenizer_config\.json",
        ),
        ("tokenizer_config.json", '{"eos_token": [3]}', r"cannot be loaded from .*tokenizer_config\.json"),
        ("config.json", "[" * 10**5, r"config\.json is not readable JSON"),
        ("config.json", '{"model_type": "unheard of"}', r"cannot be loaded from config\.json"),
    ],
)
def test_a_damaged_file_is_named_with_the_way_out(tmp_path, name, content, what):
    (saved(tmp_path) / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(CheckpointError, match=what):
        load_tokenizer(tmp_path)


def test_what_only_another_library_reads_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x0b")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(
        CheckpointError, match=r"from config\.json, tokenizer\.model.* save the tokenizer as tokenizer"
    ):
        load_tokenizer(tmp_path)


def test_values_of_config_json_that_the_library_would_refuse_do_not_matter(tmp_path):
    (saved(tmp_path) / "config.json").write_text('{"model_type": "llama", "rms_norm_eps": 1, "use_cache": 1}')
    assert load_tokenizer(tmp_path).encode("the fox") == TOKENIZERS["byte-level"].encode("the fox")


@pytest.mark.parametrize("text", ["\ud800", "the \udfff fox"])
def test_text_that_is_no_text_is_refused(text):
    with pytest.raises(RequestError, match=r"lone surrogate.*Remove"):
        TOKENIZERS["byte-level"].encode(text)


def test_what_the_library_cannot_do_is_an_error_of_ours():
    tokenizer = wrap(Backend(models.WordLevel({"a": 0, "<s>": 1, "</s>": 2}, unk_token="none")))
    with pytest.raises(RequestError, match=r"cannot encode the text: .*UNK.*give token ids"):
        tokenizer.encode("b")
    backend = byte_level()
    backend.decoder = decoders.Sequence(
        [decoders.Replace("a", ""), decoders.Fuse(), decoders.Strip("b", 0, 1)]
    )
    tokenizer = wrap(backend)
    with pytest.raises(RequestError, match=r"cannot decode the token ids .*repair the decoder"):
        tokenizer.decode([tokenizer.piece_to_id("a")])
    assert tokenizer.decode([]) == ""


def test_a_tokenizer_in_python_is_refused():
    with pytest.raises(CheckpointError, match="object is not a fast tokenizer"):
        Tokenizer(object())


# ---- Detokenizer ----


def test_added_tokens_are_plain_text_not_bytes():
    tokenizer = TOKENIZERS["byte-level"]
    text = "a plain added漢é fox"
    assert "".join(stream(tokenizer, tokenizer.encode(text))) == text
    assert tokenizer.vocab_size - 1 in tokenizer.encode(text)


def byte_id(tokenizer, byte):
    if not tokenizer.is_byte_level:
        return 3 + byte
    # The trainer numbers the alphabet by code point: the printable bytes first, the others from U+0100 on.
    others = [b for b in range(256) if not (0x21 <= b < 0x7F or 0xA1 <= b < 0xAD or b >= 0xAE)]
    return tokenizer._backend.token_to_id(chr(256 + others.index(byte)) if byte in others else chr(byte))


@every_tokenizer
def test_every_byte_has_its_token(tokenizer):
    assert tokenizer.decode([byte_id(tokenizer, byte) for byte in "é😀".encode()]).strip() == "é😀"


def test_a_character_comes_out_when_its_last_byte_does():
    tokenizer = TOKENIZERS["byte-level"]
    assert stream(tokenizer, [byte_id(tokenizer, byte) for byte in "é😀!".encode()]) == [
        "",
        "é",
        "",
        "",
        "",
        "😀",
        "!",
        "",
    ]


def test_words_come_out_at_once():
    for tokenizer in TOKENIZERS.values():
        ids = tokenizer.encode("the quick brown fox", add_special_tokens=False)
        parts = stream(tokenizer, ids)
        assert all(parts[1:-1])
        assert parts[-1] == ""


def test_half_a_character_at_the_end_is_replaced():
    tokenizer = TOKENIZERS["byte-level"]
    assert stream(tokenizer, [byte_id(tokenizer, byte) for byte in "😀".encode()[:3]]) == [
        "",
        "",
        "",
        "\ufffd",
    ]


def test_a_space_after_a_skipped_token_is_kept():
    tokenizer = TOKENIZERS["llama 2"]
    fox = tokenizer.encode("fox", add_special_tokens=False)
    assert "".join(stream(tokenizer, [*fox, 1, *fox])) == "fox fox"


@every_tokenizer
@pytest.mark.parametrize("kind", ["words", "broken bytes"])
def test_time_per_token_does_not_grow(tokenizer, kind):
    """16 times the tokens may take up to 64 times the processor time; a quadratic one takes 256 times."""
    chooser = random.Random(0)
    ids = {
        "words": [chooser.randrange(259, tokenizer.vocab_size) for _ in range(8000)],
        "broken bytes": [byte_id(tokenizer, 0xE2)] * 8000,
    }[kind]

    def seconds(count):
        start = time.process_time()
        stream(tokenizer, ids[:count])
        return time.process_time() - start

    assert seconds(8000) < 64 * min(seconds(500) for _ in range(5))


# ---- StopStrings ----


def find_stop(parts, stop, include=False):
    """The definition: as the text grows by a character, the first moment that counts and at which a stop string ends.

    `parts` are texts and whether each counts.
    """
    text = ""
    for part, counts in parts:
        for character in part:
            text += character
            for s in stop if counts else ():
                if text.endswith(s):
                    return text if include else text.removesuffix(s), s
    return text, None


def run_stop(parts, stop, include=False):
    matcher, shown = StopStrings(stop, include), []
    for part, counts in parts:
        text, hit = matcher.push(part, counts)
        shown.append(text)
        if hit is not None:
            return shown, hit
    return [*shown, matcher.finish()], None


def counted(*parts):
    return [(part, True) for part in parts]


letters = st.text("abc", max_size=4)
parts_of_text = st.lists(st.tuples(letters, st.booleans()), max_size=12)
stop_strings = st.lists(letters.filter(bool), max_size=4).map(tuple)


@given(parts_of_text, stop_strings, st.booleans())
def test_a_stop_string_is_found_wherever_the_text_is_cut(parts, stop, include):
    shown, hit = run_stop(parts, stop, include)
    assert ("".join(shown), hit) == find_stop(parts, stop, include)


@given(parts_of_text, stop_strings)
def test_no_more_is_kept_back_than_could_become_a_stop_string(parts, stop):
    matcher, seen, shown = StopStrings(stop), "", ""
    for part, counts in parts:
        text, hit = matcher.push(part, counts)
        seen, shown = seen + part, shown + text
        if hit is not None:
            return
        kept = seen[len(shown) :]
        assert not kept or any(s.startswith(kept) for s in stop)


def test_a_stop_string_across_tokens():
    assert run_stop(counted("Hello, wo", "rld", "! STO", "P now"), ("STOP",)) == (
        ["Hello, wo", "rld", "! ", ""],
        "STOP",
    )
    assert run_stop(counted("a STO", "NE"), ("STOP",)) == (["a ", "STONE", ""], None)
    assert run_stop(counted("a STO"), ("STOP",)) == (["a ", "STO"], None)


def test_the_first_to_be_complete_wins_and_of_two_the_first_of_the_list():
    assert run_stop(counted("xabcd"), ("abcd", "bc")) == (["xa"], "bc")
    assert run_stop(counted("xabc"), ("bc", "abc")) == (["xa"], "bc")
    assert run_stop(counted("xabc"), ("abc", "bc")) == (["x"], "abc")
    assert run_stop(counted("anything"), ()) == (["anything", ""], None)


def test_a_stop_string_that_does_not_count_may_begin_one_that_does():
    assert run_stop([("xab", False), ("c", True)], ("ab", "abc")) == (["x", ""], "abc")
    assert run_stop([("xb", False), ("x", True)], ("b", "bc")) == (["x", "bx", ""], None)
