"""The tokenizer of a GGUF file: a list of tokens with a type each, and what joins characters into them.

Two kinds are read. "gpt2" is byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM): the file has the merges, and the name of
the rule that splits a text into words first. "llama" is SentencePiece BPE (Llama 2, Mistral): a merge is any two
tokens that make a third, the one with the highest score first.
The rules are those of the models' own tokenizer.json, which llama.cpp follows in `src/llama-vocab.cpp`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from minillm.errors import CheckpointError
from minillm.model.config_keys import refusal
from minillm.model.gguf import GgufFile
from minillm.model.tokenizer import Tokenizer

_PREFIX = "tokenizer.ggml."
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # types of tokens
_TEMPLATE = "tokenizer.chat_template"
_ROLES = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id"}
_OFF = ("add_sep_token", "remove_extra_whitespaces")  # not implemented
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, kw_only=True)
class Split:
    """The rule by which a byte-level tokenizer splits a text into words before it merges bytes.

    `pattern` matches one word; None is GPT-2's rule. `single_digits` makes every digit a word. `nfc` normalises the
    text first. `whole_words` means that a word which is a token needs no merges. `add_bos` is the default if the file
    does not say it.
    """

    pattern: str | None = None
    single_digits: bool = False
    nfc: bool = False
    whole_words: bool = False
    add_bos: bool = False


_LLAMA_3 = Split(pattern=_WORD + r"|\p{N}{1,3}" + _TAIL, whole_words=True, add_bos=True)
_QWEN_2 = Split(pattern=_WORD + r"|\p{N}" + _TAIL, nfc=True)
SPLITS = {
    "gpt-2": Split(),
    "smollm": Split(single_digits=True),
    "llama-bpe": _LLAMA_3,
    "llama3": _LLAMA_3,
    "llama-v3": _LLAMA_3,
    "qwen2": _QWEN_2,
    "deepseek-r1-qwen": _QWEN_2,
    "tekken": Split(pattern=_TEKKEN, whole_words=True, add_bos=True),  # Mistral Nemo
}


def read_tokenizer(file: GgufFile) -> Tokenizer | None:
    """Return the tokenizer of a file, or None if it holds none and the model takes only token ids.

    Raises `CheckpointError` for a kind or a rule that is not implemented, and for lists that do not fit together.
    """
    from transformers import PreTrainedTokenizerFast

    kind = file.metadata.get(_PREFIX + "model", "none")
    if kind in ("none", "no_vocab"):
        return None
    if kind not in _KINDS:
        raise refusal(str(file.path), _PREFIX + "model", kind, f"implemented: {', '.join(_KINDS)}")
    vocabulary = _Vocabulary(file)
    for key in _OFF:
        if vocabulary.get(key, False):
            raise refusal(str(file.path), _PREFIX + key, True, "implemented: false")
    try:
        backend = _KINDS[kind](vocabulary)
        backend.add_special_tokens(vocabulary.added(_CONTROL))
        backend.add_tokens(vocabulary.added(_USER_DEFINED))
    except Exception as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{file.path}: the tokens and merges do not fit together ({error}). Download the file again"
        ) from error
    named = {f"{role}_token": vocabulary.token(key) for role, key in _ROLES.items()}
    return Tokenizer(
        PreTrainedTokenizerFast(
            tokenizer_object=backend,
            chat_template=_chat_templates(file.metadata),
            **{name: token for name, token in named.items() if token is not None},
        )
    )


class _Vocabulary:
    """The tokens of a file: `ids` by text, and the types and settings that belong to them."""

    def __init__(self, file: GgufFile) -> None:
        self.path, self._metadata = file.path, file.metadata
        self.tokens: list[str] = self.values("tokens", str)
        self.ids = {token: token_id for token_id, token in enumerate(self.tokens)}
        self.types: list[int] = self.values("token_type", int, [_NORMAL] * len(self.tokens))
        if len(self.ids) != len(self.tokens):
            twice = next(t for i, t in enumerate(self.tokens) if self.ids[t] != i)
            raise self.wrong("tokens", f"holds {twice!r} twice")
        if len(self.types) != len(self.tokens):
            raise self.wrong("token_type", f"has {len(self.types)} entries for {len(self.tokens)} tokens")

    def get(self, key: str, default: Any = None) -> Any:
        return self._metadata.get(_PREFIX + key, default)

    def values(self, key: str, kind: type, default: list[Any] | None = None) -> list[Any]:
        found = self.get(key, default)
        if not isinstance(found, list) or any(type(value) is not kind for value in found):
            raise self.wrong(key, f"must be a list of {kind.__name__}")
        return found

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if type(value) is not bool:
            raise self.wrong(key, f"is {value!r:.80} and must be true or false")
        return value

    def token(self, key: str) -> str | None:
        """Return the token that a key such as "bos_token_id" names, or None if the file has no such key."""
        token_id = self.get(key)
        if token_id is None:
            return None
        if type(token_id) is not int or not 0 <= token_id < len(self.tokens):
            raise self.wrong(key, f"is {token_id!r:.80}, and the vocabulary has {len(self.tokens)} tokens")
        return self.tokens[token_id]

    def added(self, kind: int) -> list[AddedToken]:
        """Return the tokens of a type, which are found in a text before it is split."""
        return [
            AddedToken(token, normalized=False, special=kind == _CONTROL)
            for token, token_kind in zip(self.tokens, self.types, strict=True)
            if token_kind == kind
        ]

    def template(self, add_bos: bool) -> processors.PostProcessor | None:
        """Return what puts the first and the last token around a text; `add_bos` holds if the file does not say."""
        first, last = self._end("bos", add_bos), self._end("eos", False)
        if not first and not last:
            return None
        special = [(token, self.ids[token]) for token in {*first, *last}]
        return processors.TemplateProcessing(single=[*first, "$A", *last], special_tokens=special)

    def _end(self, role: str, default: bool) -> list[str]:
        if not self.flag(f"add_{role}_token", default):
            return []
        token = self.token(f"{role}_token_id")
        if token is None:
            raise self.wrong(f"add_{role}_token", f"is true, and the file has no {role}_token_id")
        return [token]

    def wrong(self, key: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {_PREFIX}{key} {what}. Download the file again")


def _byte_level(vocabulary: _Vocabulary) -> Backend:
    """Return a tokenizer that joins bytes, in words cut by the rule that the file names."""
    name = vocabulary.get("pre")
    if name not in SPLITS:
        hint = f"implemented: {', '.join(SPLITS)}. Files without a name are old: convert the model again"
        raise refusal(str(vocabulary.path), _PREFIX + "pre", name, hint)
    if vocabulary.flag("add_space_prefix", False):
        raise refusal(str(vocabulary.path), _PREFIX + "add_space_prefix", True, "implemented: false")
    split = SPLITS[name]
    merges = [tuple(merge.split(" ")) for merge in vocabulary.values("merges", str)]
    backend = Backend(models.BPE(vocabulary.ids, merges, ignore_merges=split.whole_words))
    if split.nfc:
        backend.normalizer = normalizers.NFC()
    first: list[pre_tokenizers.PreTokenizer] = []
    if split.single_digits:
        first = [pre_tokenizers.Digits(individual_digits=True)]
    if split.pattern is not None:
        first = [pre_tokenizers.Split(Regex(split.pattern), "isolated")]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split.pattern is None)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*first, to_bytes])
    backend.decoder = decoders.ByteLevel()
    if ends := vocabulary.template(split.add_bos):
        backend.post_processor = ends
    return backend


def _sentencepiece(vocabulary: _Vocabulary) -> Backend:
    """Return a tokenizer that joins characters, with "▁" for a space and byte tokens for unknown characters."""
    model = models.BPE(
        vocabulary.ids,
        list(_implied_merges(vocabulary)),
        unk_token=vocabulary.token("unknown_token_id"),
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Backend(model)
    begin, strip = [], []
    if vocabulary.flag("add_space_prefix", True):
        begin, strip = [normalizers.Prepend("▁")], [decoders.Strip(" ", 1, 0)]
    backend.normalizer = normalizers.Sequence([*begin, normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    if ends := vocabulary.template(add_bos=True):
        backend.post_processor = ends
    return backend


def _implied_merges(vocabulary: _Vocabulary) -> Iterator[tuple[str, str]]:
    """Yield each two ordinary tokens that make a third, by its score, the highest first."""
    scores = vocabulary.values("scores", float)
    if len(scores) != len(vocabulary.tokens):
        raise vocabulary.wrong("scores", f"has {len(scores)} entries for {len(vocabulary.tokens)} tokens")
    normal = {t for t, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if kind == _NORMAL}
    for whole in sorted(normal, key=lambda token: (-scores[vocabulary.ids[token]], vocabulary.ids[token])):
        halves = [(whole[:i], whole[i:]) for i in range(1, len(whole))]
        pairs = [(left, right) for left, right in halves if left in normal and right in normal]
        yield from sorted(pairs, key=lambda pair: (vocabulary.ids[pair[0]], vocabulary.ids[pair[1]]))


def _chat_templates(metadata: Mapping[str, Any]) -> str | dict[str, str] | None:
    """Return the chat template, or several by name if the file has more than one."""
    default = metadata.get(_TEMPLATE)
    named = {
        key.removeprefix(_TEMPLATE + "."): text
        for key, text in metadata.items()
        if key.startswith(_TEMPLATE + ".")
    }
    return {"default": default, **named} if named and default is not None else named or default


_KINDS = {"gpt2": _byte_level, "llama": _sentencepiece}
