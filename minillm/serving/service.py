"""The service: from a parsed body to a reply, without any HTTP.

encode    text and conversations to token ids, in a bounded pool of threads
start     route each prompt to a replica and queue it
deliver   the whole reply, or its chunks while the engine works
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from minillm.serving.failures import NoModelError, TooLongError, failure_of, of_the_user
from minillm.serving.generation import Encoded, Generation, Mailbox, Notifier
from minillm.serving.protocol import (
    ChatBody,
    CompletionBody,
    FieldError,
    GenerationBody,
    TokenizeBody,
    refuse_missing,
    template_arguments,
)
from minillm.serving.registry import Registry, Replica, UnavailableError
from minillm.serving.replies import JSON, ChatReply, CompletionReply, Reply
from minillm.serving.settings import Settings
from minillm.serving.sse import DONE, event

T = TypeVar("T")
ENCODING_THREADS = 4


class Service:
    """The models of `registry` for an event loop. While `draining` is set, new requests are refused."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self.registry, self.settings = registry, settings
        self.draining = False
        self._open: set[Generation] = set()
        self._num_starting = 0
        self._pool = ThreadPoolExecutor(ENCODING_THREADS, thread_name_prefix="minillm-encode")
        self._notifier: Notifier | None = None

    def replica(self, name: str | None) -> Replica:
        """Return the first replica of a model. Raises `NoModelError`."""
        try:
            return self.registry.find(name)
        except KeyError:
            known = ", ".join(map(repr, self.registry.replicas))
            raise NoModelError(f"The model {name!r} does not exist. This server has {known}") from None

    async def start(self, body: GenerationBody) -> tuple[Generation, Reply]:
        """Queue what `body` asks for. The caller must call `release` in the end."""
        if self.draining:
            raise UnavailableError("the server is shutting down: send the request to another one", 5)
        self._num_starting += 1
        try:
            generation, reply = await self._start(body)
            self._open.add(generation)
            return generation, reply
        finally:
            self._num_starting -= 1

    async def _start(self, body: GenerationBody) -> tuple[Generation, Reply]:
        replica = self.replica(body.model)
        refuse_missing(body)
        self.registry.check_admission(replica.name)  # under overload, a refusal must cost little
        with of_the_user(body):
            params = body.sampling_params(replica.default_params)
        prompts = await self._encode(body, replica)
        if len(prompts) * params.n > self.settings.max_num_samples:
            raise FieldError(
                "n",
                f"{len(prompts)} prompts with n={params.n} are {len(prompts) * params.n} samples: ask for at most "
                f"{self.settings.max_num_samples} in one request",
            )
        _check_room(params.max_tokens, prompts, replica)
        if self._notifier is None:
            self._notifier = Notifier(asyncio.get_running_loop())
        mailbox = Mailbox(self._notifier, only_ends=not body.stream)
        with of_the_user(body):
            generation = await Generation.start(
                self.registry, replica.name, prompts, params, body.priority or 0, mailbox
            )
        kind = ChatReply if isinstance(body, ChatBody) else CompletionReply
        return generation, kind(body, replica.name, generation.outputs, replica.llm.tokenizer)

    def release(self, generation: Generation) -> None:
        """End a generation; abort it if it has not finished."""
        self._open.discard(generation)
        generation.release()

    @property
    def num_open(self) -> int:
        """Return the number of HTTP requests that are being answered."""
        return len(self._open) + self._num_starting

    async def complete(self, body: GenerationBody) -> JSON:
        """Return the whole reply."""
        generation, reply = await self.start(body)
        try:
            await generation.finish()
            self._check_not_aborted(generation)
            return reply.complete()
        finally:
            self.release(generation)

    async def events(self, generation: Generation, reply: Reply) -> AsyncGenerator[bytes, None]:
        """Yield the events of a stream. An error becomes the last event, and then there is no `[DONE]`."""
        try:
            async for parts in generation.parts():
                if any(delta.finish_reason == "abort" for _, delta in parts):
                    self._check_not_aborted(generation)
                chunks = [chunk for prompt, delta in parts for chunk in reply.chunks(prompt, delta)]
                if chunks:
                    yield b"".join(event(json.dumps(chunk)) for chunk in chunks)
            last = reply.last_chunk()
            yield (b"" if last is None else event(json.dumps(last))) + event(DONE)
        except Exception as error:
            yield event(json.dumps(failure_of(error).content()))

    async def tokenize(self, body: TokenizeBody) -> JSON:
        """Return the token ids of a text or a conversation, in vLLM's form."""
        llm = self.replica(body.model).llm
        if (body.prompt is None) == (body.messages is None):
            raise FieldError("prompt", "give either prompt or messages")
        with of_the_user(body):
            if body.messages is not None:
                messages, arguments = body.messages, template_arguments(body)
                self._check_length(messages)
                _, ids = await self.in_pool(lambda: llm.encode_chat(messages, **arguments))
            elif not body.prompt:
                ids = []
            else:
                self._check_length(body.prompt)
                text, special = body.prompt, body.add_special_tokens is not False
                _, ids = await self.in_pool(lambda: llm.encode(text, special))
        reply: JSON = {"count": len(ids), "max_model_len": llm.config.max_model_len, "tokens": ids}
        pieces = None
        if body.return_token_strs and llm.tokenizer is not None:
            pieces = [llm.tokenizer.id_to_piece(i) for i in ids]
        return reply | {"token_strs": pieces}

    async def in_pool(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _encode(self, body: GenerationBody, replica: Replica) -> list[Encoded]:
        llm = replica.llm
        with of_the_user(body):
            if isinstance(body, ChatBody):
                messages, arguments = body.messages, template_arguments(body)
                self._check_length(messages)
                return [await self.in_pool(lambda: llm.encode_chat(messages, **arguments))]
            assert isinstance(body, CompletionBody)
            prompts, special = body.prompts(), body.add_special_tokens is not False
            for prompt in prompts:
                self._check_length(prompt)
            if all(isinstance(prompt, list) for prompt in prompts):
                return [(None, prompt) for prompt in prompts if isinstance(prompt, list)]
            return await self.in_pool(lambda: [llm.encode(prompt, special) for prompt in prompts])

    def _check_length(self, prompt: Any) -> None:
        """Raise `TooLongError` for a prompt whose tokenisation would take long. The engine checks its tokens."""
        limit, length = self.settings.max_prompt_characters, _length(prompt)
        if length > limit:
            raise TooLongError(f"a prompt has {length} characters, and the limit is {limit}: shorten it")

    def _check_not_aborted(self, generation: Generation) -> None:
        samples = (sample for output in generation.outputs for sample in output.outputs)
        if any(sample.finish_reason == "abort" for sample in samples):
            raise UnavailableError("the server ended this request because it is shutting down", 5)


def _length(value: Any) -> int:
    """Return the number of characters of all texts in a JSON value, and of token ids."""
    length, rest = 0, [value]
    while rest:
        one = rest.pop()
        length += len(one) if isinstance(one, str) else 1
        rest += one if isinstance(one, list) else one.values() if isinstance(one, dict) else ()
    return length


def _check_room(max_tokens: int | None, prompts: Sequence[Encoded], replica: Replica) -> None:
    """Raise `FieldError` if the tokens that a body asks for do not fit after one of its prompts."""
    limit = replica.llm.config.max_model_len
    for _, ids in prompts:
        if max_tokens is not None and limit is not None and len(ids) + max_tokens > limit:
            raise FieldError(
                "max_tokens",
                f"{len(ids)} prompt tokens and max_tokens={max_tokens} are more than the {limit} tokens of the "
                "model's context: lower max_tokens, or shorten the prompt",
            )
