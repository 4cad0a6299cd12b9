"""Replies: the engine's outputs and deltas in the JSON of OpenAI's two APIs.

A reply is complete, or it is a stream of chunks with one id. `usage` counts what was delivered, not what the engine has
generated in the meantime.
"""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minillm.engine.request import Delta, RequestOutput
from minillm.model.tokenizer import Tokenizer
from minillm.sampling import Logprob
from minillm.serving.protocol import ChatBody, CompletionBody, GenerationBody

JSON = dict[str, Any]
LOWEST_LOGPROB = -9999.0  # JSON has no -inf


class Reply:
    """The reply to one body. `outputs` are the live outputs of its prompts.

    Sample k of prompt i is choice `i * n + k`.
    """

    prefix = object = chunk_object = ""

    def __init__(
        self, body: GenerationBody, model: str, outputs: Sequence[RequestOutput], tokenizer: Tokenizer | None
    ) -> None:
        self.body, self.outputs, self.tokenizer = body, outputs, tokenizer
        self.head = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "object": self.object,
            "created": int(time.time()),
            "model": model,
        }
        self.chunk_head = {**self.head, "object": self.chunk_object}
        self._num_completion_tokens = 0
        self._begun: set[int] = set()  # the choices of which something was sent
        options = body.stream_options
        self._with_usage = options is not None and bool(options.include_usage)
        self._continuous = options is not None and bool(options.continuous_usage_stats)

    def complete(self) -> JSON:
        """Return the whole reply, once every output has finished."""
        choices = []
        for i, output in enumerate(self.outputs):
            for sample in output.outputs:
                whole = Delta(
                    sample.index,
                    sample.text,
                    sample.token_ids,
                    sample.finish_reason,
                    sample.stop_reason,
                    sample.logprobs,
                )
                self._num_completion_tokens += len(self._own_part(whole).token_ids)
                choices.append(self._choice(i, self._own_part(whole), whole=True))
        return {**self.head, "choices": choices, "usage": self.usage()}

    def chunks(self, prompt: int, delta: Delta) -> Iterator[JSON]:
        """Yield the chunks that deliver a new part of a sample. A part without anything to show has none."""
        delta = self._own_part(delta)
        self._num_completion_tokens += len(delta.token_ids)
        number = self._number(prompt, delta.index)
        if number not in self._begun:
            for opening in self._openings(number):
                yield self._chunk([opening])
        shows = bool(delta.text or delta.finish_reason or delta.logprobs or self.body.return_token_ids)
        if shows or (number not in self._begun and self._opens_with_part):
            choice = self._choice(prompt, delta, whole=False)
            self._begun.add(number)
            yield self._chunk([choice])
        self._begun.add(number)

    def last_chunk(self) -> JSON | None:
        """Return the chunk with the usage, whose choices are empty, if the body asks for it."""
        if not self._with_usage:
            return None
        return {**self.chunk_head, "choices": [], "usage": self.usage()}

    def usage(self) -> JSON:
        num_prompt = sum(len(output.prompt_token_ids) for output in self.outputs)
        cached = sum(output.num_cached_tokens or 0 for output in self.outputs)
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": self._num_completion_tokens,
            "total_tokens": num_prompt + self._num_completion_tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _chunk(self, choices: list[JSON]) -> JSON:
        chunk = {**self.chunk_head, "choices": choices}
        if self._with_usage or self._continuous:
            chunk["usage"] = self.usage() if self._continuous else None
        return chunk

    def _number(self, prompt: int, index: int) -> int:
        return prompt * len(self.outputs[0].outputs) + index

    def _own_part(self, delta: Delta) -> Delta:
        return delta

    _opens_with_part = False

    def _openings(self, number: int) -> list[JSON]:
        """Return the choices that begin a sample's stream."""
        return []

    def _choice(self, prompt: int, delta: Delta, *, whole: bool) -> JSON:
        raise NotImplementedError

    def _ending(self, prompt: int, delta: Delta, whole: bool) -> JSON:
        """Return the fields of a choice that both APIs have."""
        fields: JSON = {"finish_reason": delta.finish_reason, "stop_reason": delta.stop_reason}
        if self.body.return_token_ids:
            fields["token_ids"] = delta.token_ids
        if whole and self.body.prompt_logprobs is not None:
            fields["prompt_logprobs"] = [
                None if one is None else {str(i): self._prompt_logprob(i, lp) for i, lp in one.items()}
                for one in self.outputs[prompt].prompt_logprobs or ()
            ]
        return fields

    def _prompt_logprob(self, token_id: int, one: Logprob) -> JSON:
        return {
            "logprob": _finite(one.logprob),
            "rank": one.rank,
            "decoded_token": self._token_text(token_id, one),
        }

    def _token_text(self, token_id: int, one: Logprob) -> str:
        return f"token_id:{token_id}" if one.decoded_token is None else one.decoded_token


class CompletionReply(Reply):
    """A reply of `/v1/completions`. With `echo`, a sample begins with its prompt and the logprobs of the prompt."""

    body: CompletionBody
    prefix, object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._offsets: dict[
            int, int
        ] = {}  # characters of the tokens whose logprobs were delivered, per choice
        self._opens_with_part = bool(self.body.echo)

    def _own_part(self, delta: Delta) -> Delta:
        if not self.body.echo_only:
            return delta
        reason = delta.finish_reason and "length"
        return Delta(delta.index, "", [], reason, None, None if delta.logprobs is None else [])

    def _choice(self, prompt: int, delta: Delta, *, whole: bool) -> JSON:
        number, output = self._number(prompt, delta.index), self.outputs[prompt]
        echo = bool(self.body.echo) and number not in self._begun
        choice: JSON = {
            "index": number,
            "text": (self._prompt_text(output) if echo else "") + delta.text,
            "logprobs": None,
        }
        if self.body.logprobs is not None:
            tokens = list(zip(delta.token_ids, delta.logprobs or (), strict=True))
            choice["logprobs"] = self._logprobs(number, output if echo else None, tokens)
        return choice | self._ending(prompt, delta, whole)

    def _prompt_text(self, output: RequestOutput) -> str:
        if output.prompt is not None or self.tokenizer is None:
            return output.prompt or ""
        return self.tokenizer.decode(output.prompt_token_ids)

    def _logprobs(
        self, number: int, echoed: RequestOutput | None, tokens: list[tuple[int, dict[int, Logprob]]]
    ) -> JSON:
        """Return the four lists of this API, with an entry per token; `echoed` contributes its prompt's tokens."""
        reports: list[tuple[int, Mapping[int, Logprob] | None]] = list(tokens)
        if echoed is not None:
            prompt = zip(echoed.prompt_token_ids, echoed.prompt_logprobs or (), strict=True)
            reports = [*prompt, *tokens]
        texts, logprobs, top, offsets = list[str](), list[float | None](), list[JSON | None](), list[int]()
        offset = self._offsets.get(number, 0)
        for token_id, report in reports:
            offsets.append(offset)
            if report is None:  # the first token of a prompt
                text = (
                    f"token_id:{token_id}" if self.tokenizer is None else self.tokenizer.token_text(token_id)
                )
                logprobs.append(None)
                top.append(None)
            else:
                text = self._token_text(token_id, report[token_id])
                logprobs.append(_finite(report[token_id].logprob))
                top.append({self._token_text(i, one): _finite(one.logprob) for i, one in report.items()})
            texts.append(text)
            offset += len(text)
        self._offsets[number] = offset
        return {"tokens": texts, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": offsets}


class ChatReply(Reply):
    """A reply of `/v1/chat/completions`. Each sample's stream begins with a chunk that has the role."""

    body: ChatBody
    prefix, object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def _openings(self, number: int) -> list[JSON]:
        delta = {"role": "assistant", "content": ""}
        return [{"index": number, "delta": delta, "logprobs": None, "finish_reason": None}]

    def _choice(self, prompt: int, delta: Delta, *, whole: bool) -> JSON:
        message: JSON = {"content": delta.text}
        if whole:
            message = {"role": "assistant", "content": delta.text, "refusal": None}
        logprobs = None
        if self.body.logprobs and delta.logprobs is not None:
            tokens = zip(delta.token_ids, delta.logprobs, strict=True)
            logprobs = {"content": [self._report(token_id, report) for token_id, report in tokens]}
        choice = {"index": delta.index, "message" if whole else "delta": message, "logprobs": logprobs}
        return choice | self._ending(prompt, delta, whole)

    def _report(self, token_id: int, report: Mapping[int, Logprob]) -> JSON:
        top = [self._entry(i, one) for i, one in report.items() if one.rank <= (self.body.top_logprobs or 0)]
        return {**self._entry(token_id, report[token_id]), "top_logprobs": top}

    def _entry(self, token_id: int, one: Logprob) -> JSON:
        text = self._token_text(token_id, one)
        data = text.encode()
        if not text and self.tokenizer is not None:  # a part of a character
            piece = self.tokenizer.id_to_piece(token_id)
            data = (self.tokenizer.piece_bytes(piece) if piece is not None else None) or b""
        return {"token": text, "logprob": _finite(one.logprob), "bytes": list(data)}


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST_LOGPROB)
