"""`SamplingParams`: what one request asks of sampling.

Names and defaults are those of vLLM 0.33 (vllm/sampling_params.py), so a script moves there by changing one import.
`_CHECKS`, at the end of this file, is the table of what each parameter accepts.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from torch import Tensor

LogitsProcessor = Callable[[list[int], Tensor], Tensor]
"""`(output_token_ids, logits [V]) -> logits [V]`. It gets copies, so it may change both in place."""

GREEDY_BELOW = 1e-5
LOWEST_TEMPERATURE = 0.01


@dataclass(kw_only=True, slots=True)
class SamplingParams:
    """The sampling parameters of one request.

    Each value is checked when it is assigned. Parameters that depend on each other are checked when the record is made
    or cloned, and the engine clones the record of every request that it accepts.

    - `n`: number of samples per prompt. Sample i uses `seed + i`. Greedy decoding allows only 1.
    - `temperature`: divides the logits. Below 1e-5 means greedy decoding; a value from there to 0.01 is raised to 0.01.
    - `top_p`: keeps the smallest set of most likely tokens whose probabilities reach this sum. 1 turns it off.
    - `top_k`: keeps this many of the most likely tokens. 0 or -1 turns it off.
    - `min_p`: keeps tokens at least this fraction as likely as the most likely one. 0 turns it off.
    - `repetition_penalty`: divides the logit of every token of the prompt and the output, or multiplies a negative one.
    - `presence_penalty`, `frequency_penalty`: subtracted from a token's logit once, or for each time it was output.
    - `max_tokens`: the largest number of output tokens. `None` continues to the end of the context.
    - `min_tokens`: nothing stops the output before it has this many tokens.
    - `stop`, `stop_token_ids`: strings and tokens that end the output. `include_stop_str_in_output` keeps the string.
    - `ignore_eos`: whether to continue after the model's own end token.
    - `logprobs`, `prompt_logprobs`: number of most likely tokens to report per position, in addition to the actual one.
      -1 reports the whole vocabulary.
    - `logit_bias`: maps a token id to a number that is added to its logit.
    - `allowed_token_ids`: the only tokens that may be sampled; `None` allows all.
    - `bad_words`: strings that the output must not contain.
    - `seed`: makes the samples reproducible. `None` or -1 lets the engine derive one.
    - `detokenize`: whether to convert the output to text. `skip_special_tokens`: whether to leave special tokens out.
    - `logits_processors`: functions (output token ids, logits) -> logits, called before everything else, in order.

    Raises `TypeError` or `ValueError` with the parameter, its value and its limits.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_tokens: int | None = 16
    min_tokens: int = 0
    stop: str | list[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] | None = None
    seed: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    logits_processors: Sequence[LogitsProcessor] | None = None
    # Parameters of vLLM that are accepted at their default only.
    spaces_between_special_tokens: bool = True
    flat_logprobs: bool = False
    logprob_token_ids: None = None
    prompt_logprob_token_ids: None = None
    prompt_logprob_start: None = None
    structured_outputs: None = None
    thinking_token_budget: None = None
    repetition_detection: None = None
    watermarking: None = None
    stream_interval: None = None
    skip_reading_prefix_cache: None = None
    skip_clone: bool = False
    extra_args: None = None
    routed_experts_prompt_start: int = 0
    trace_decode_token_ids: None = None

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, _CHECKS.get(name, _only_default)(name, value))

    def __post_init__(self) -> None:
        self.top_k, self.seed = max(0, self.top_k), None if self.seed == -1 else self.seed
        self.stop_token_ids = list(dict.fromkeys(self.stop_token_ids or ()))
        self.bad_words = list(dict.fromkeys(self.bad_words or ()))
        if not self.is_greedy:
            self.temperature = max(self.temperature, LOWEST_TEMPERATURE)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}. "
                "Raise max_tokens or lower min_tokens."
            )
        if self.allowed_token_ids == []:
            raise ValueError("allowed_token_ids=[] allows no token. Name one, or use None to allow all.")
        if self.stop and not self.detokenize:
            raise ValueError(
                f"stop={self.stop!r} is searched for in the text, and detokenize=False produces none. "
                "Use stop_token_ids, or leave detokenize on."
            )
        if self.is_greedy:
            if self.n > 1:
                raise ValueError(
                    f"n={self.n} samples would all be equal with temperature={self.temperature}, which is greedy "
                    "decoding. Use n=1, or raise temperature."
                )
            self.top_p, self.top_k, self.min_p = 1.0, 0, 0.0

    def clone(self) -> "SamplingParams":
        """Return a checked copy that shares no list with this record."""
        return replace(self)

    @property
    def is_greedy(self) -> bool:
        """Return whether the most likely token is taken, without a random draw."""
        return self.temperature < GREEDY_BELOW

    @property
    def effective_temperature(self) -> float:
        """Return the number that divides the logits: `temperature`, or 1 for greedy decoding."""
        return 1.0 if self.is_greedy else self.temperature


def check_vocabulary(params: SamplingParams, vocab_size: int) -> None:
    """Raise `ValueError` for token ids, or a number of logprobs, that a vocabulary of `vocab_size` tokens lacks."""
    for name in ("stop_token_ids", "allowed_token_ids", "logit_bias"):
        if outside := [token_id for token_id in getattr(params, name) or () if token_id >= vocab_size]:
            raise ValueError(
                f"{name} contains the token ids {outside[:8]}. The vocabulary ends at {vocab_size - 1}. "
                "Remove these ids, or check which model they belong to."
            )
    for name in ("logprobs", "prompt_logprobs"):
        if (getattr(params, name) or 0) > vocab_size:
            raise ValueError(
                f"{name}={getattr(params, name)} is more than the {vocab_size} tokens of the vocabulary. "
                "Use -1 for all of them."
            )


Check = Callable[[str, Any], Any]  # (name, value) -> the value to store; raises TypeError or ValueError


def _number(
    kind: type[int] | type[float],
    low: float,
    high: float = math.inf,
    hint: str = "",
    *,
    above: bool = False,
    optional: bool = False,
) -> Check:
    """Accept numbers from `low` to `high`, without `low` itself if `above`, and None if `optional`."""
    accepted: Any = Integral if kind is int else Real
    least = f"{'more than' if above else 'at least'} {low}"
    bounds = least if math.isinf(high) else f"{least} and at most {high}"

    def check(name: str, value: Any) -> int | float | None:
        if value is None and optional:
            return None
        # bool is an Integral in Python, but True as a number is a mistake.
        if isinstance(value, bool) or not isinstance(value, accepted):
            raise _wrong_type(name, value, "an integer" if kind is int else "a number")
        if not low <= value <= high or (above and value == low):
            raise ValueError(f"{name}={value!r} is out of bounds. It must be {bounds}. {hint}".rstrip())
        return kind(value)

    return check


def _instance(kind: Any, wanted: str) -> Check:
    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise _wrong_type(name, value, wanted)
        return value

    return check


def _list(item: Check, kind: Any = Iterable) -> Check:
    """Accept a list of what `item` accepts. None becomes an empty list."""

    def check(name: str, values: Any) -> list[Any]:
        values = [] if values is None else values
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, kind):
            raise _wrong_type(name, values, "a list")
        return [item(f"{name}[{i}]", value) for i, value in enumerate(values)]

    return check


def _text(name: str, value: Any) -> Any:
    if value == "":
        raise ValueError(f"{name} is an empty string, which is part of every text. Remove it.")
    return _instance(str, "a string")(name, value)


def _biases(name: str, values: Any) -> dict[int, float]:
    biases = _instance(Mapping, "a dict of token ids and numbers")(name, {} if values is None else values)
    return {_TOKEN(f"a key of {name}", key): _BIAS(f"{name}[{key}]", bias) for key, bias in biases.items()}


def _only_default(name: str, value: Any) -> Any:
    field = SamplingParams.__dataclass_fields__.get(name)
    if field is None:
        raise AttributeError(f"SamplingParams has no parameter {name!r}")
    if type(value) is not type(field.default) or value != field.default:
        raise ValueError(f"{name}={value!r} is not supported. Leave it at its default, {field.default!r}.")
    return value


def _wrong_type(name: str, value: object, wanted: str) -> TypeError:
    return TypeError(f"{name}={value!r} is of type {type(value).__name__}. It must be {wanted}.")


_TOKEN = _number(int, 0)
_BIAS = _number(float, -100, 100, "To forbid a token, use bad_words or allowed_token_ids.")
_LOGPROBS = _number(int, -1, 20, "Use -1 for the whole vocabulary, or None for no report.", optional=True)
_BOOL = _instance(bool, "True or False")
_CHECKS: dict[str, Check] = {
    "n": _number(int, 1, 16_384),
    "temperature": _number(float, 0, 2, "Use 0 for greedy decoding."),
    "top_p": _number(float, 0, 1, "Use 1 to turn it off.", above=True),
    "top_k": _number(int, -1, hint="Use 0 to turn it off."),
    "min_p": _number(float, 0, 1, "Use 0 to turn it off."),
    "repetition_penalty": _number(float, 0, 3.4e38, "Use 1 to turn it off.", above=True),
    "presence_penalty": _number(float, -2, 2),
    "frequency_penalty": _number(float, -2, 2),
    "max_tokens": _number(int, 1, hint="Use None to continue to the end of the context.", optional=True),
    "min_tokens": _number(int, 0),
    "stop": lambda name, value: _list(_text, list)(name, [value] if isinstance(value, str) else value),
    "stop_token_ids": _list(_TOKEN),
    "include_stop_str_in_output": _BOOL,
    "ignore_eos": _BOOL,
    "logprobs": lambda name, value: _LOGPROBS(name, 1 if value is True else value),
    "prompt_logprobs": lambda name, value: _LOGPROBS(name, 1 if value is True else value),
    "logit_bias": _biases,
    "allowed_token_ids": lambda name, value: None if value is None else _list(_TOKEN)(name, value),
    "bad_words": _list(_text),
    "seed": _number(int, -(2**63), 2**64 - 1, "Use None to let the engine derive one.", optional=True),
    "detokenize": _BOOL,
    "skip_special_tokens": _BOOL,
    "logits_processors": _list(_instance(Callable, "a function (token ids, logits) -> logits")),
}
