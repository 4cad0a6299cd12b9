"""Text to token ids and back: whole texts by the model's own tokenizer, a running output token by token.

A token is a piece of bytes, not of text: one character may be spread over several tokens, and what comes next may
still change what came last. So an output becomes text through a `Detokenizer`, which gives out only what is final,
and a stop string is found in that text by `StopStrings`, which keeps back what may yet become one.

The tokenizer itself is the library's. Importing `transformers` takes 1.3 s on top of torch's 1.9 s, so it happens
here only once somebody has text (`AutoTokenizer` and a plain `PreTrainedTokenizerFast` cost the same; the first
also finds the chat template).
"""

import codecs
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minillm.errors import CheckpointError, RequestError

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tiktoken.model")


def load_tokenizer(folder: str | Path) -> "Tokenizer | None":
    """The tokenizer of a model folder, or None where it holds none (such a model takes and gives token ids).

    Reads the folder only: no code from it is run and nothing is downloaded.
    """
    folder = Path(folder)
    if not any((folder / name).exists() for name in _TOKENIZER_FILES):
        return None
    from transformers import AutoTokenizer

    return Tokenizer(AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True))


class Tokenizer:
    """A `transformers` fast tokenizer, narrowed to what the engine needs.

    `vocab_size` is one more than the highest id, added tokens included; `special_ids` are the ids that `decode`
    skips. Raises `CheckpointError` for one that the `tokenizers` library does not run.
    """

    def __init__(self, wrapped: Any):
        if not hasattr(wrapped, "backend_tokenizer"):
            raise CheckpointError(
                f"{type(wrapped).__name__} is not a fast tokenizer: save it with a tokenizer.json, or give token ids"
            )
        self._wrapped = wrapped
        self._backend = wrapped.backend_tokenizer
        # A tokenizer.json may carry the truncation and padding of its training.
        self._backend.no_truncation()
        self._backend.no_padding()
        # Not the number of tokens: a vocabulary may have holes.
        self.vocab_size: int = max(self._backend.get_vocab().values()) + 1
        self.bos_token_id: int | None = wrapped.bos_token_id
        self.eos_token_id: int | None = wrapped.eos_token_id
        self.pad_token_id: int | None = wrapped.pad_token_id
        added = self._backend.get_added_tokens_decoder().items()
        self.special_ids = frozenset(token_id for token_id, token in added if token.special)
        self.is_byte_level = type(self._backend.decoder).__name__ == "ByteLevel"

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of `text`; by default with what the model expects around it, such as a first `<s>`."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of `token_ids`; ids that the vocabulary lacks (padding of the model's) are left out.

        The library's clean-up of spaces before punctuation is off: it would change text already streamed.
        """
        text: str = self._backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        return text

    def id_to_piece(self, token_id: int) -> str | None:
        """The token as the vocabulary writes it ("Ġthe", "<0x0A>"), or None where there is no such id."""
        piece: str | None = self._backend.id_to_token(token_id)
        return piece

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The ids of a conversation, up to where the assistant's answer begins.

        `messages` are {"role": …, "content": …}. Raises `RequestError` for a model without a chat template.
        """
        if self._wrapped.chat_template is None:
            raise RequestError(
                "this model has no chat template: it was not trained on conversations, or its folder lacks one. "
                "Use generate with the prompt as plain text"
            )
        text = self._wrapped.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        # The template writes <s> and its like itself.
        return self.encode(text, add_special_tokens=False)


class Detokenizer:
    """The text of one output, as its tokens come: `push` each, then `finish`.

    What they return, joined, is `tokenizer.decode` of all the ids, and every part of it is final: no half characters.
    The time for a token does not grow with the output.

    Byte-level tokens are plain bytes, and the incremental decoder of UTF-8 knows when a character is whole. For all
    others the text of a token depends on its neighbours (a space that is dropped at the very start, for one), so we
    decode a window that begins with the tokens before, and take what the new ones add to it.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True):
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._before: list[int] = []
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        """The text that is final now that `token_id` has come; often a word, sometimes nothing."""
        piece = self._tokenizer.id_to_piece(token_id)
        if piece is None or token_id in self._skipped:
            return ""
        if self._tokenizer.is_byte_level:
            return self._utf8.decode(_to_bytes(piece))
        self._pending.append(token_id)
        # A run of byte tokens is decoded all or nothing: one bad byte at its end spoils every character in it.
        return "" if _is_byte_fallback(piece) else self._take_pending()

    def finish(self) -> str:
        """What was still kept back: half a character becomes U+FFFD, as in `decode`."""
        return self._utf8.decode(b"", final=True) + self._take_pending()

    def _take_pending(self) -> str:
        if not self._pending:
            return ""
        known = self._tokenizer.decode(self._before, skip_special_tokens=False)
        text = self._tokenizer.decode(self._before + self._pending, skip_special_tokens=False)
        self._before, self._pending = self._pending, []
        return text[len(known) :]


class StopStrings:
    """Finds the first stop string in a text that comes in parts, and keeps back what may yet become one.

    The first is the one that is complete first, wherever the parts are cut; of two that end together, the longer.
    """

    def __init__(self, stop: Sequence[str]):
        self._stop = stop
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """The text that may be shown, and the stop string that ended it, if one did: then nothing may follow."""
        text = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            _, start, hit = min(found)
            self._held = ""
            return text[:start], hit
        safe = len(text) - self._unsafe(text)
        self._held = text[safe:]
        return text[:safe], None

    def finish(self) -> str:
        """What was still kept back, when the output ended for another reason."""
        held, self._held = self._held, ""
        return held

    def _unsafe(self, text: str) -> int:
        """The length of the longest end of `text` with which a stop string begins."""
        beginnings = (stop[:length] for stop in self._stop for length in range(1, len(stop)))
        return max((len(beginning) for beginning in beginnings if text.endswith(beginning)), default=0)


def _byte_alphabet() -> dict[str, int]:
    """The characters in which a byte-level vocabulary writes bytes: printable Latin-1 as itself, the rest from U+0100.

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


def _is_byte_fallback(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
