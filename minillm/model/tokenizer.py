"""Convert text to token ids and back: whole texts with the model's own tokenizer, a running output token by token.

A token is a sequence of bytes, not of characters. One character may need several tokens, and the next token may still
change the text of the last one. A `Detokenizer` returns only text that is final. `StopStrings` finds stop strings in
that text, and holds back text that may still become a stop string.

The tokenizer itself comes from `transformers`. Importing that takes 1.3 s in addition to torch's 1.9 s, so it is
imported only if a model has a tokenizer.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from minillm.errors import CheckpointError, RequestError
from minillm.model.bad_words import TokenTexts, forbid_words
from minillm.model.chat import render_chat

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tiktoken.model")
_JSON_FILES = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_CONTEXT = 4  # characters or tokens that are decoded again with a new one; no decoder looks back as far


def load_tokenizer(folder: str | Path) -> "Tokenizer | None":
    """Return the tokenizer of a model folder, or None if the folder holds none and the model takes only token ids.

    Only the folder is read: no code from it is run and nothing is downloaded. Raises `CheckpointError` for a tokenizer
    that is damaged or that needs a library which is not installed.
    """
    folder = Path(folder)
    if not any((folder / name).exists() for name in _TOKENIZER_FILES):
        return None
    from transformers import AutoConfig, AutoTokenizer

    options = {}
    config = _read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    try:
        if "model_type" in config:
            # The library chooses a class by these two, and would refuse other values that our own table supports.
            options["config"] = AutoConfig.for_model(config["model_type"])
            options["config"].tokenizer_class = config.get("tokenizer_class")
        return Tokenizer(
            AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
        )
    except BaseException as error:
        if isinstance(error, CheckpointError) or not _is_failure(error):
            raise
        found = sorted({*_TOKENIZER_FILES, *_JSON_FILES} & {path.name for path in folder.iterdir()})
        for name in found:
            if name.endswith(".json"):
                _read_json(folder / name)  # raises an error that names the damaged file
        raise CheckpointError(
            f"the tokenizer of {folder} cannot be loaded from {', '.join(found)}. The tokenizer library says: "
            f"{_first_line(error)}. Download these files again, or save the tokenizer as tokenizer.json"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not readable JSON: {_first_line(error)}. Download the file again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a JSON {type(content).__name__} but must hold an object. Download the file again"
        )
    return content


def _is_failure(error: BaseException) -> bool:
    """Return whether `error` is a failure and not an interrupt. A panic of the Rust library is no `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: " + " ".join(str(error).split())[:200]


class Tokenizer:
    """A `transformers` fast tokenizer with the methods that the engine needs.

    `vocab_size` is one more than the highest id, added tokens included. `special_ids` are the ids that `decode` skips.
    `eos_token_id` is the end token that the tokenizer itself names, or None. Raises `CheckpointError` for a tokenizer
    that the `tokenizers` library does not run.
    """

    def __init__(self, wrapped: Any):
        if not hasattr(wrapped, "backend_tokenizer"):
            raise CheckpointError(
                f"{type(wrapped).__name__} is not a fast tokenizer: save it with a tokenizer.json, or give token ids"
            )
        self.wrapped = wrapped
        self._backend = wrapped.backend_tokenizer
        # A tokenizer.json may carry the truncation and padding of its training.
        self._backend.no_truncation()
        self._backend.no_padding()
        # This is not the number of tokens, because a vocabulary may skip ids.
        self.vocab_size: int = max(self._backend.get_vocab().values()) + 1
        self.bos_token_id: int | None = wrapped.bos_token_id
        self.eos_token_id: int | None = wrapped.eos_token_id
        self.pad_token_id: int | None = wrapped.pad_token_id
        added = self._backend.get_added_tokens_decoder().items()
        self.special_ids = frozenset(token_id for token_id, token in added if token.special)
        decoders = _decoder_types(self._backend.decoder)
        self.is_byte_level = decoders[:1] == ["ByteLevel"] and set(decoders[1:]) <= {"Fuse"}
        self.has_byte_fallback = "ByteFallback" in decoders
        self._has_byte_alphabet = "ByteLevel" in decoders

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of `text`, by default with the special tokens that the model expects, such as a first `<s>`.

        Raises `RequestError` for text that the tokenizer cannot encode.
        """
        try:
            ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        except BaseException as error:
            if not _is_failure(error):
                raise
            surrogate = re.search("[\ud800-\udfff]", text)
            reason = f"it holds the lone surrogate {surrogate[0]!r}" if surrogate else _first_line(error)
            raise RequestError(
                f"the tokenizer cannot encode the text: {reason}. Remove that part of the text, or give token ids"
            ) from error
        return ids

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Return the text of `token_ids`. Ids that the vocabulary lacks (the model's padding) are left out.

        The library's clean-up of spaces before punctuation is off, because it would change text already streamed.
        Raises `RequestError` if the library fails.
        """
        ids = list(token_ids)
        try:
            # The library's decoder Strip panics on an empty list.
            return str(self._backend.decode(ids, skip_special_tokens=skip_special_tokens)) if ids else ""
        except BaseException as error:
            if not _is_failure(error):
                raise
            raise RequestError(
                f"the tokenizer cannot decode the token ids {ids[:8]}: {_first_line(error)}. "
                "Set detokenize=False, or repair the decoder in tokenizer.json"
            ) from error

    def vocabulary(self) -> dict[str, int]:
        """Return the id of each piece, added tokens included."""
        pieces: dict[str, int] = self._backend.get_vocab()
        return pieces

    def id_to_piece(self, token_id: int) -> str | None:
        """Return the token as the vocabulary spells it ("Ġthe", "<0x0A>"), or None if there is no such id."""
        piece: str | None = self._backend.id_to_token(token_id)
        return piece

    def piece_to_id(self, piece: str) -> int | None:
        """Return the id of a token as the vocabulary spells it, or None if there is no such token."""
        token_id: int | None = self._backend.token_to_id(piece)
        return token_id

    def token_text(self, token_id: int, before: Sequence[int] = ()) -> str:
        """Return the text that a single token has in the middle of a text: " world", "</s>", "" for an unknown id.

        A token that ends within a character has the text "". The token that completes the character after the tokens
        `before` has the text of all of the character's tokens, as in vLLM (v1/engine/logprobs.py).
        """
        # A character has at most four bytes, so four tokens before this one can be parts of it.
        for start in range(len(before), max(-1, len(before) - 5), -1):
            context = [*self._anchor, *before[start:]]
            text = self.decode([*context, token_id], skip_special_tokens=False)
            if not text.endswith("\ufffd"):
                while context and self.decode(context[-1:], skip_special_tokens=False).endswith("\ufffd"):
                    context.pop()
                return text[len(self.decode(context, skip_special_tokens=False)) :]
        return ""

    @cached_property
    def _anchor(self) -> list[int]:
        """Return a list of one token with plain text. Decoders drop a space at the start, but not after this token."""
        ordinary = (i for i in range(self.vocab_size) if i not in self.special_ids)
        return [next((i for i in ordinary if self.decode([i]).isalnum()), 0)]

    def forbid_words(self, words: Sequence[str]) -> Callable[[Sequence[int]], Tensor]:
        """Return a function from an output's ids to the ids that would complete one of `words` (bad_words.py).

        If a word is the name of a special token, it stands for that token. Raises `RequestError` for a word that is not
        valid UTF-8.
        """
        surrogates = [word for word in words if re.search("[\ud800-\udfff]", word)]
        if surrogates:
            raise RequestError(
                f"bad_words holds {surrogates[0]!r} with a lone surrogate, which no text contains: remove it"
            )
        special = [i for word in words if (i := self.piece_to_id(word)) is not None and i in self.special_ids]
        return forbid_words(self._token_texts, words, special)

    @cached_property
    def _token_texts(self) -> TokenTexts:
        """Return the bytes that each token adds in the middle of a text."""
        pieces = [self.id_to_piece(token_id) for token_id in range(self.vocab_size)]
        in_context = [[*self._anchor, token_id] for token_id in range(self.vocab_size)]
        texts = self._backend.decode_batch(in_context, skip_special_tokens=False)
        start = len(self.decode(self._anchor))
        data = [None if piece is None else self.piece_bytes(piece) for piece in pieces]
        return TokenTexts(
            [
                b"" if pieces[i] is None or i in self.special_ids else known or text[start:].encode()
                for i, (known, text) in enumerate(zip(data, texts, strict=True))
            ]
        )

    def piece_bytes(self, piece: str) -> bytes | None:
        """Return the bytes of a token of a byte-level vocabulary or of a byte token "<0x0A>", None for other tokens."""
        if self._has_byte_alphabet:
            return _to_bytes(piece)
        found = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece) if self.has_byte_fallback else None
        return bytes.fromhex(found[1]) if found else None

    @cached_property
    def byte_ids(self) -> list[int | None]:
        """Return the token of each of the 256 bytes; None for a byte without a token."""
        if self._has_byte_alphabet:
            return [
                self.piece_to_id(character) for character, _ in sorted(_BYTES.items(), key=lambda x: x[1])
            ]
        return [self.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)]

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **arguments: Any) -> list[int]:
        """Return the ids of a conversation, up to the assistant's answer. The arguments are those of `chat_text`."""
        # The template itself writes special tokens such as <s>.
        return self.encode(self.chat_text(messages, **arguments), add_special_tokens=False)

    def chat_text(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Return the text of a conversation, up to the beginning of the assistant's answer.

        `messages` are {"role": ..., "content": ...}; a content is text or a list of {"type": "text", "text": ...}.
        `continue_final_message` leaves the last message open, so that the model continues it. `chat_template` replaces
        the model's own. `chat_template_kwargs` and `tools` are passed to the template. Raises `RequestError` if the
        model has no chat template, and for messages that the template or this function does not support.
        """
        if chat_template is None and self.wrapped.chat_template is None:
            raise RequestError(
                "this model has no chat template: it was not trained on conversations, or its folder lacks one. "
                "Use generate with the prompt as plain text"
            )
        try:
            template = self.wrapped.get_chat_template(chat_template, tools=tools)
        except Exception as error:
            raise RequestError(f"no chat template can be chosen: {_first_line(error)}") from error
        return render_chat(
            template,
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            variables={**self.wrapped.special_tokens_map, **(chat_template_kwargs or {})},
        )


# The decoder ByteFallback does this. "replace" would write one U+FFFD for several bytes that begin a character.
codecs.register_error("replace_each_byte", lambda error: ("\ufffd" * (error.end - error.start), error.end))  # type: ignore[attr-defined]


class Detokenizer:
    """Converts the tokens of one output into text: `push` each token, then `finish`.

    The output is decoded after `prompt_token_ids`, so that its first word keeps its space. Every returned text is final
    and contains only whole characters. Together, the texts equal what `tokenizer.decode` adds to the prompt's text. The
    one exception is a run of byte tokens ("<0x0A>") that is not valid UTF-8: `decode` replaces every character of such
    a run, but here only the broken bytes become U+FFFD. The time per token does not grow with the output.

    Tokens that are bytes go through the incremental decoder of UTF-8, which knows when a character is complete. In most
    other vocabularies the text of a token depends on the tokens next to it; a space at the very start is dropped, for
    example. So we decode a window that begins with earlier tokens, and return the text that the new tokens add.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt_token_ids: Sequence[int] = (), skip_special_tokens: bool = True
    ):
        self._tokenizer, self._prompt, self._skip = tokenizer, prompt_token_ids, skip_special_tokens
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        errors = "replace_each_byte" if tokenizer.has_byte_fallback else "replace"
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors)
        self._window: list[int] = []  # the last tokens whose text was returned; they are whole characters
        self._window_text = ""
        self._num_added = self._num_old = (
            0  # what was added to the window since it was cut, and tokens before that
        )
        for token_id in reversed([*islice(self._visible(reversed(prompt_token_ids)), _CONTEXT)]):
            self.push(token_id)

    def fresh(self) -> "Detokenizer":
        """Return a Detokenizer with the same arguments that has seen no output yet."""
        return Detokenizer(self._tokenizer, self._prompt, self._skip)

    def push(self, token_id: int) -> str:
        """Return the text that became final with `token_id`: often a word, sometimes nothing."""
        piece = self._tokenizer.id_to_piece(token_id)
        if piece is None or token_id in self._skipped:
            return ""
        data = self._tokenizer.piece_bytes(piece)
        if data is None:
            return self.finish() + self._take([token_id])
        text = self._utf8.decode(data)
        if self._tokenizer.is_byte_level:
            return text
        return self._take([token_id] if text.encode() == data else self._spell(text))

    def finish(self) -> str:
        """Return the text that was still held back. An incomplete character becomes U+FFFD, as in `decode`."""
        text = self._utf8.decode(b"", final=True)
        return text if self._tokenizer.is_byte_level else self._take(self._spell(text))

    def _visible(self, token_ids: Iterable[int]) -> Iterator[int]:
        known = self._tokenizer.id_to_piece
        return (i for i in token_ids if i not in self._skipped and known(i) is not None)

    def _spell(self, text: str) -> list[int]:
        """Return the tokens that write `text` byte by byte."""
        ids = (self._tokenizer.byte_ids[byte] for byte in text.encode())
        return [token_id for token_id in ids if token_id is not None]

    def _take(self, token_ids: list[int]) -> str:
        """Return the text that these tokens add, and keep them as context for the next ones."""
        if not token_ids:
            return ""
        known, self._window = self._window_text, self._window + token_ids
        text = self._window_text = self._tokenizer.decode(self._window, skip_special_tokens=False)
        self._num_added += 1
        if self._num_added == _CONTEXT:
            self._window = self._window[self._num_old :]
            self._window_text = self._tokenizer.decode(self._window, skip_special_tokens=False)
            self._num_added, self._num_old = 0, len(self._window)
        return text[len(known) :]


class StopStrings:
    """Finds the first stop string in a text that comes in parts, and holds back text that may still become one.

    The first stop string is the one that is complete first, for any division into parts. If two are complete at the
    same character, the first one in the list counts.
    """

    def __init__(self, stop: Sequence[str], include_in_output: bool = False):
        self._stop, self._include = stop, include_in_output
        self._held = ""

    def fresh(self) -> "StopStrings":
        """Return a StopStrings with the same arguments that has seen no text yet."""
        return StopStrings(self._stop, self._include)

    def push(self, text: str, counts: bool = True) -> tuple[str, str | None]:
        """Return the text that may be shown, and the stop string that ended it or None. Do not push after a stop.

        If `counts` is false, a stop string that is complete within `text` is ignored. A stop string that begins here
        and is complete later counts.
        """
        num_old, text = len(self._held), self._held + text
        if counts and (found := [*self._complete(text, num_old)]):
            end, stop = min(found, key=lambda match: match[0])
            self._held = ""
            return text[: end if self._include else end - len(stop)], stop
        safe = len(text) - self._unsafe(text)
        self._held = text[safe:]
        return text[:safe], None

    def finish(self) -> str:
        """Return the text that was still held back, after the output has ended for another reason."""
        held, self._held = self._held, ""
        return held

    def _complete(self, text: str, num_old: int) -> Iterator[tuple[int, str]]:
        """Yield (end, stop string) for each stop string that is complete after `num_old` characters of `text`."""
        for stop in self._stop:
            start = text.find(stop, max(0, num_old + 1 - len(stop)))
            if start >= 0:
                yield start + len(stop), stop

    def _unsafe(self, text: str) -> int:
        """Return the length of the longest end of `text` that is the beginning of a stop string."""
        beginnings = (stop[:length] for stop in self._stop for length in range(1, len(stop)))
        return max((len(beginning) for beginning in beginnings if text.endswith(beginning)), default=0)


def _decoder_types(decoder: Any) -> list[str]:
    """Return the types of a decoder of the `tokenizers` library; for a Sequence, those of its parts in order."""

    def types(state: dict[str, Any]) -> Iterator[str]:
        if state["type"] == "Sequence":
            for part in state["decoders"]:
                yield from types(part)
        else:
            yield state["type"]

    return [] if decoder is None else [*types(json.loads(decoder.__getstate__()))]


def _byte_alphabet() -> dict[str, int]:
    """Return the byte of each character of a byte-level vocabulary: printable Latin-1 as itself, others from U+0100.

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), the GPT-2 vocabulary.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _to_bytes(piece: str) -> bytes:
    try:
        return bytes(_BYTES[character] for character in piece)
    except KeyError:
        # An added token is written in plain text.
        return piece.encode()
