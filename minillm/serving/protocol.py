"""The bodies of requests: OpenAI's fields and vLLM's additional ones, and the `SamplingParams` that they mean.

Unknown fields are accepted and ignored, as in vLLM. A field whose feature is missing is refused by name, because a
client that asks for tools must not get a plain text.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from minillm.sampling import SamplingParams


class FieldError(ValueError):
    """A body with a value that cannot be served. `param` is the name of its field, or None if that is not known."""

    def __init__(self, param: str | None, message: str) -> None:
        super().__init__(message)
        self.param = param


class Body(BaseModel):
    """A JSON body. Types are strict: the text "5" is not a number."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())

    model: str | None = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class GenerationBody(Body):
    """The fields that completions and chat completions have in common. None means the model's default."""

    n: int | None = Field(None, ge=1, le=128)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    # vLLM's
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    prompt_logprobs: int | None = Field(None, ge=0, le=20)
    bad_words: list[str] | None = None
    allowed_token_ids: list[int] | None = None
    priority: int | None = Field(None, ge=-(2**31), lt=2**31)
    return_token_ids: bool | None = None

    def num_logprobs(self) -> int | None:
        """Return the number of most likely tokens to report for each sampled token, or None for no report."""
        raise NotImplementedError

    def token_limit(self) -> int | None:
        return self.max_tokens

    def sampling_params(self, defaults: SamplingParams) -> SamplingParams:
        """Return `defaults` with what the body says. Raises `ValueError` or `TypeError` for a bad value."""
        if self.prompt_logprobs is not None and self.stream:
            raise FieldError(
                "prompt_logprobs",
                "prompt_logprobs cannot be streamed: set stream=false, or use echo with logprobs",
            )
        given = {name: getattr(self, name) for name in _SAMPLING if getattr(self, name) is not None}
        if self.logit_bias is not None:
            given["logit_bias"] = {_token_id(key): bias for key, bias in self.logit_bias.items()}
        given["logprobs"] = self.num_logprobs()
        return replace(defaults, max_tokens=self.token_limit(), **given)


_SAMPLING = (
    "n temperature top_p presence_penalty frequency_penalty seed stop top_k min_p repetition_penalty min_tokens "
    "stop_token_ids ignore_eos skip_special_tokens include_stop_str_in_output prompt_logprobs bad_words "
    "allowed_token_ids"
).split()


def _token_id(key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) < 20):
        raise FieldError(
            "logit_bias", f'logit_bias has the key {key[:40]!r}: its keys are token ids, such as "11"'
        )
    return int(key)


class CompletionBody(GenerationBody):
    """The body of `/v1/completions`. A prompt is text, token ids, or a list of either."""

    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: int | None = Field(16, ge=0)
    echo: bool | None = False
    logprobs: int | None = Field(None, ge=0, le=20)
    best_of: int | None = None
    suffix: str | None = None
    add_special_tokens: bool | None = True

    def num_logprobs(self) -> int | None:
        return self.logprobs

    @property
    def echo_only(self) -> bool:
        """Return whether the prompt's own logprobs are all that is asked for. The engine still samples one token."""
        return bool(self.echo) and self.max_tokens == 0

    def token_limit(self) -> int | None:
        return 1 if self.echo_only else self.max_tokens

    def sampling_params(self, defaults: SamplingParams) -> SamplingParams:
        params = super().sampling_params(defaults)
        if self.echo and self.logprobs is not None:
            params.prompt_logprobs = max(self.logprobs, self.prompt_logprobs or 0)
        return params

    def prompts(self) -> list[str | list[int]]:
        given: Any = self.prompt
        one = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
        prompts = [given] if one else list(given)
        if not prompts:
            raise FieldError(
                "prompt", "prompt is an empty list: give at least one text or one list of token ids"
            )
        return prompts


class ChatBody(GenerationBody):
    """The body of `/v1/chat/completions`."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=0)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    # vLLM's
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def num_logprobs(self) -> int | None:
        if self.top_logprobs and not self.logprobs:
            raise FieldError("top_logprobs", f"top_logprobs={self.top_logprobs} needs logprobs=true: set it")
        return (self.top_logprobs or 0) if self.logprobs else None

    def token_limit(self) -> int | None:
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class TokenizeBody(Body):
    """The body of `/tokenize`, for a text or a conversation."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = False


def template_arguments(body: ChatBody | TokenizeBody) -> dict[str, Any]:
    """Return the arguments of `LLM.encode_chat` that a body asks for."""
    return {
        "add_generation_prompt": body.add_generation_prompt is not False,
        "continue_final_message": bool(body.continue_final_message),
        "chat_template_kwargs": body.chat_template_kwargs,
    }


class DetokenizeBody(Body):
    """The body of `/detokenize`."""

    tokens: list[int]


Harmless = Callable[[Any, Mapping[str, Any]], bool]


def _is(*values: object) -> Harmless:
    return lambda value, body: any(type(value) is type(known) and value == known for known in values)


_NOTHING = _is(None, [], {}, "", False)
_MISSING: dict[str, Harmless] = {
    "best_of": lambda value, body: value is None or value == (body.get("n") or 1),
    "suffix": _NOTHING,
    "tools": _NOTHING,
    "tool_choice": _is(None, "none", "auto"),
    "functions": _NOTHING,
    "function_call": _is(None, "none", "auto"),
    "response_format": _is(None, {"type": "text"}),
    "modalities": _is(None, [], ["text"]),
    "audio": _NOTHING,
    "prediction": _NOTHING,
    "web_search_options": lambda value, body: value is None,
    "structured_outputs": _NOTHING,
    "guided_json": _NOTHING,
    "guided_regex": _NOTHING,
    "guided_choice": _NOTHING,
    "guided_grammar": _NOTHING,
    "use_beam_search": _NOTHING,
    "prompt_embeds": _NOTHING,
    "truncate_prompt_tokens": lambda value, body: value is None,
    "chat_template": _NOTHING,
    "logits_processors": _NOTHING,
}
"""Fields whose feature is missing, each with the values that ask for nothing."""


def refuse_missing(body: Body) -> None:
    """Raise `FieldError` for the first field that asks for a missing feature."""
    given = {**body.__dict__, **(body.model_extra or {})}
    for name, harmless in _MISSING.items():
        if name in given and not harmless(given[name], given):
            raise FieldError(name, f"{name} is not supported by this server: leave it out")
