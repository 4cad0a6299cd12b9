"""Tokenizers from GGUF metadata against the tokenizer.json that they were made from, and against `transformers`.

The originals have the structure of each model's own tokenizer.json, over a small vocabulary that is trained here.
"""

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from minillm.errors import CheckpointError, RequestError
from minillm.model.gguf_tokenizer import read_tokenizer
from minillm.model.stored import open_model
from minillm.model.tokenizer import Tokenizer
from tests.model.gguf_files import tokenizer_metadata as metadata
from tests.model.gguf_files import write_gguf
from tests.model.zoo import sample

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "Once upon a time, in 1984, a fox couldn't find its 12 cubs.  It'll look\n\nfor them\tagain.",
    "DON'T shout! I'VE 100,000 reasons... (and 3.14159 more) — naïve café Ångström Zoë’s",
    "def f(x):\n        return x ** 2  # squared\r\n",
    "漢字かな交じり文 и русский текст नमस्ते 👩‍👩‍👧‍👦 🙂",
] * 20
NASTY = [
    CORPUS[0],
    CORPUS[1],
    "",
    " ",
    "  two  spaces   three    ",
    "\n\n \n\t\r\n x \n",
    "1 12 123 1234 12345 3.14 1,000,000 ²½ ٣٤",
    "DON'T can't I'll we'VE it’s 'quoted'",
    "Hello,world!!!???...(x)[y]{z}<|im|>",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|> <|endoftext|><|endoftext|>x",
    "a<think>b</think> c<think>",
    "naïve café Zoë cafe\u0301 A\u030angstro\u0308m \ufb01 \u212b",
    "漢字 かな русский नमस्ते \u200d 👩‍👩‍👧‍👦🙂\U0001f3fd",
    "\x00\x01\x7f\u00a0\u2028\ufeff\ufffd",
    "camelCaseHTTPServer snake_case __init__ https://a.b/c?d=e&f#g",
    "    indented\n\tcode = [1, 2,3]\n",
    "ſpecial İstanbul ǅ ΑΣ",
    "x" * 300,
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace("{1,3}", "")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


PRE_TOKENIZERS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama-bpe": split(LLAMA_3),
    "qwen2": split(QWEN_2),
    "tekken": split(TEKKEN),
}
every_split = pytest.mark.parametrize("name", PRE_TOKENIZERS)


@cache
def byte_level(name: str, without_merges: int = 40) -> Backend:
    """A vocabulary that shows which rule reads it: it has numbers of several digits, and words without merges."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = PRE_TOKENIZERS["gpt-2"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    content = json.loads(backend.to_str())
    del content["model"]["merges"][len(content["model"]["merges"]) - without_merges :]
    content["model"]["ignore_merges"] = name in ("llama-bpe", "tekken")
    backend = Backend.from_str(json.dumps(content))
    if name == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer, backend.decoder = PRE_TOKENIZERS[name], decoders.ByteLevel()
    backend.add_tokens([AddedToken(token, normalized=False) for token in ("<think>", "</think>")])
    return backend


def sentencepiece() -> Backend:
    """As the tokenizer.json of Llama 2: spaces are ▁, unknown characters are bytes, the first word gets a space."""
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    backend = Backend(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    ascii_only = [
        " ".join("".join(c for c in text if c.isascii()).split()).replace(" ", "▁") for text in CORPUS
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<unk>", "<s>", "</s>", *every_byte],
        show_progress=False,
        max_token_length=8,
    )
    backend.train_from_iterator(ascii_only, trainer)
    content = json.loads(backend.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    backend = Backend.from_str(json.dumps(content))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend


def read(keys: dict[str, Any]) -> Tokenizer:
    tokenizer = read_tokenizer(SimpleNamespace(metadata=keys, path=Path("m.gguf")))  # type: ignore[arg-type]
    assert tokenizer is not None
    return tokenizer


# ---- ids ----


@every_split
def test_ids_and_texts_are_those_of_the_original(name: str) -> None:
    original = byte_level(name)
    tokenizer = read(metadata(original, "gpt2", pre=name, add_bos_token=False))
    for text in NASTY:
        ids = original.encode(text).ids
        assert tokenizer.encode(text) == ids, text
        for skip in (True, False):
            assert tokenizer.decode(ids, skip) == original.decode(ids, skip_special_tokens=skip)
    assert len(set().union(*(original.encode(text).ids for text in NASTY))) > 120
    assert tokenizer.special_ids == {0, 1, 2} and tokenizer.is_byte_level


def test_the_rules_differ() -> None:
    """Or the test above would pass with any of them."""
    words = set()
    for name in PRE_TOKENIZERS:
        rule = read(
            metadata(byte_level("gpt-2"), "gpt2", pre=name, add_bos_token=False)
        ).wrapped.backend_tokenizer
        words.add(str([rule.pre_tokenizer.pre_tokenize_str(text) for text in NASTY]))
    assert len(words) == 5


def test_ids_and_texts_of_sentencepiece() -> None:
    original = sentencepiece()
    keys = metadata(original, "llama", bos_token_id=1, eos_token_id=2, unknown_token_id=0)
    tokenizer = read(keys)
    for text in NASTY:
        ids = original.encode(text).ids
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == original.decode(ids)
    assert tokenizer.special_ids == {1, 2, 0} and tokenizer.has_byte_fallback
    bare = read(keys | {"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False})
    assert bare.decode(bare.encode(" a fox")) == " a fox" and bare.encode("▁a") == bare.encode(" a")


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "qwen2", "tekken", "llama"])
def test_ids_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """Its reader ignores three rules, which are left out: SmolLM's digits, Qwen's NFC, Llama 3's whole words."""
    if name == "llama":
        keys = metadata(sentencepiece(), "llama", bos_token_id=1, eos_token_id=2, unknown_token_id=0)
        # It puts no space before a text that begins with one, where Llama 2's tokenizer.json does.
        texts = [text for text in NASTY if not text[:1].isspace() and "<|" not in text]
    else:
        keys = metadata(
            byte_level(name, without_merges=0),
            "gpt2",
            pre=name,
            bos_token_id=0,
            eos_token_id=2,
            add_bos_token=False,
        )
        texts = [text for text in NASTY if "\u0301" not in text]
    path = write_gguf(tmp_path / "model.gguf", sample("llama").reference, metadata=keys)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    ours = open_model(path).tokenizer()
    assert ours is not None
    for text in texts:
        assert ours.encode(text) == theirs(text)["input_ids"], text


# ---- the first and the last token ----


@pytest.mark.parametrize(
    ("name", "adds"),
    [("gpt-2", False), ("smollm", False), ("qwen2", False), ("llama-bpe", True), ("tekken", True)],
)
def test_whether_a_text_begins_with_bos(name: str, adds: bool) -> None:
    """As llama.cpp does for a file that does not say."""
    keys = metadata(byte_level(name), "gpt2", pre=name, bos_token_id=1, eos_token_id=2)
    assert (read(keys).encode("a fox")[0] == 1) is adds
    for said in (True, False):
        tokenizer = read(keys | {"tokenizer.ggml.add_bos_token": said})
        assert (tokenizer.encode("a fox")[0] == 1) is said
        assert tokenizer.encode("a fox", add_special_tokens=False)[0] != 1
    both = read(keys | {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}).encode(
        "a fox"
    )
    assert both[0] == 1 and both[-1] == 2 and both.count(1) == both.count(2) == 1


def test_the_named_tokens() -> None:
    tokenizer = read(
        metadata(byte_level("qwen2"), "gpt2", pre="qwen2", bos_token_id=1, eos_token_id=2, padding_token_id=0)
    )
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    bare = read(metadata(byte_level("qwen2"), "gpt2", pre="qwen2"))
    assert (bare.bos_token_id, bare.eos_token_id, bare.pad_token_id) == (None, None, None)


# ---- conversations ----


def test_the_chat_template() -> None:
    keys = metadata(byte_level("smollm"), "gpt2", pre="smollm", eos_token_id=2)
    tokenizer = read(keys | {"tokenizer.chat_template": TEMPLATE})
    messages = [{"role": "user", "content": "Hi"}]
    assert tokenizer.chat_text(messages) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.apply_chat_template(messages)[0] == 1
    with pytest.raises(RequestError, match="no chat template"):
        read(keys).chat_text(messages)


def test_several_chat_templates() -> None:
    keys = metadata(byte_level("smollm"), "gpt2", pre="smollm")
    keys |= {
        "tokenizer.chat_template": "plain",
        "tokenizer.chat_template.tool_use": "with {{ tools[0].name }}",
    }
    tokenizer, messages = read(keys), [{"role": "user", "content": "Hi"}]
    assert tokenizer.chat_text(messages) == "plain"
    assert tokenizer.chat_text(messages, tools=[{"name": "clock"}]) == "with clock"


# ---- what is refused ----


def test_a_file_without_a_tokenizer() -> None:
    for keys in ({}, {"tokenizer.ggml.model": "none"}, {"tokenizer.ggml.model": "no_vocab"}):
        assert read_tokenizer(SimpleNamespace(metadata=keys, path=Path("m.gguf"))) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "bert"}, r"ggml.model='bert' is not implemented \(implemented: gpt2, llama"),
        ({"pre": "gpt-4o"}, "ggml.pre='gpt-4o' is not implemented .*smollm"),
        ({"pre": None}, "ggml.pre=None is not implemented .*convert the model again"),
        ({"add_space_prefix": True}, "ggml.add_space_prefix=True is not implemented"),
        ({"add_sep_token": True}, "ggml.add_sep_token=True is not implemented"),
        ({"remove_extra_whitespaces": True}, "ggml.remove_extra_whitespaces=True is not implemented"),
        ({"tokens": None}, "ggml.tokens must be a list of str"),
        ({"tokens": [1, 2]}, "ggml.tokens must be a list of str"),
        ({"tokens": ["a", "b", "a"]}, "ggml.tokens holds 'a' twice"),
        ({"token_type": [1, 1]}, "ggml.token_type has 2 entries for 461 tokens"),
        ({"merges": None}, "ggml.merges must be a list of str"),
        ({"merges": ["a"]}, "do not fit together"),
        ({"merges": ["zz yy"]}, "do not fit together"),
        ({"bos_token_id": 461}, "ggml.bos_token_id is 461, and the vocabulary has 461 tokens"),
        ({"add_bos_token": True}, "ggml.add_bos_token is true, and the file has no bos_token_id"),
        ({"add_bos_token": 1}, "ggml.add_bos_token is 1 and must be true or false"),
    ],
)
def test_metadata_that_is_wrong_or_not_implemented(change: dict[str, Any], says: str) -> None:
    keys = metadata(byte_level("smollm"), "gpt2", pre="smollm") | {
        f"tokenizer.ggml.{k}": v for k, v in change.items()
    }
    keys = {key: value for key, value in keys.items() if value is not None}
    if change.get("tokens"):
        keys["tokenizer.ggml.token_type"] = [1] * len(change["tokens"])
    with pytest.raises(CheckpointError, match=f"m.gguf.*{says}"):
        read(keys)


def test_sentencepiece_with_scores_that_do_not_fit() -> None:
    keys = metadata(sentencepiece(), "llama", bos_token_id=1, unknown_token_id=0)
    for scores, says in ((None, "scores must be a list of float"), ([1.0], "scores has 1 entries for")):
        with pytest.raises(CheckpointError, match=f"m.gguf: tokenizer.ggml.{says}"):
            read(keys | {"tokenizer.ggml.scores": scores})
