"""What a user may ask of sampling: one frozen record, checked once, when it is made.

Names and defaults are those of vLLM's `SamplingParams`, so that a script moves there by changing one import.
Whatever passes the checks here needs no second look in the engine, except the ids that only a model can judge:
those are for `check_vocabulary`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from torch import Tensor

LogitsProcessor = Callable[[list[int], Tensor], Tensor]
"""`(output_token_ids, logits [V]) -> logits [V]`: called before everything else, on a copy of the row."""

GREEDY_BELOW = 1e-5
LOWEST_TEMPERATURE = 0.01


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to sample one request.

    Sequences are stored as tuples, empty where nothing was given, except `allowed_token_ids`, where `None` means
    every id. A lone `stop` or `bad_words` string becomes a tuple of one.

    - `n`: how many samples of the prompt; sample i uses `seed + i`.
    - `temperature`: divides the logits. Below 1e-5 it is greedy decoding; otherwise below 0.01 it is raised to 0.01.
    - `top_p`: keep the smallest set of likeliest tokens whose probabilities reach this sum; 1 is off.
    - `top_k`: keep this many of the likeliest tokens; 0 (or -1) is off.
    - `min_p`: keep tokens at least this fraction as likely as the likeliest; 0 is off.
    - `repetition_penalty`: divides (or multiplies, where negative) the logit of every token seen in prompt or output.
    - `presence_penalty`, `frequency_penalty`: taken off a token's logit once, or once for each time it was output.
    - `max_tokens`: at most this many output tokens; `None` goes on to the end of the context.
    - `min_tokens`: the output cannot stop before it has this many.
    - `stop`, `stop_token_ids`: the output ends at any of these; the stop string is not part of the text.
    - `ignore_eos`: the model's own end of sequence does not stop the output.
    - `logprobs`, `prompt_logprobs`: report this many of the likeliest tokens besides the one that is there.
    - `logit_bias`: token id -> what to add to its logit.
    - `allowed_token_ids`: sample from these alone. `bad_words`: never complete any of these.
    - `seed`: makes the sample reproducible; without it the engine derives one.
    - `detokenize`: whether to make text of the output.
    - `logits_processors`: functions of (output so far, logits), applied first, in order.

    Raises `TypeError` or `ValueError`, naming the parameter, the value and what would do.
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
    stop: Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: Mapping[int, float] | None = field(default=None, hash=False)
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] | None = None
    seed: int | None = None
    detokenize: bool = True
    logits_processors: Sequence[LogitsProcessor] | None = None

    def __post_init__(self) -> None:
        checked = {
            "n": _integer("n", self.n, 1),
            "temperature": _number("temperature", self.temperature, 0, hint="0 is greedy decoding"),
            "top_p": _number("top_p", self.top_p, 0, 1, open_low=True, hint="1 turns it off"),
            "top_k": max(0, _integer("top_k", self.top_k, -1, hint="0 turns it off")),
            "min_p": _number("min_p", self.min_p, 0, 1, hint="0 turns it off"),
            "repetition_penalty": _number(
                "repetition_penalty", self.repetition_penalty, 0, open_low=True, hint="1 turns it off"
            ),
            "presence_penalty": _number("presence_penalty", self.presence_penalty, -2, 2),
            "frequency_penalty": _number("frequency_penalty", self.frequency_penalty, -2, 2),
            "max_tokens": _optional(
                _integer, "max_tokens", self.max_tokens, 1, hint="None goes on to the end of the context"
            ),
            "min_tokens": _integer("min_tokens", self.min_tokens, 0),
            "stop": _strings("stop", self.stop),
            "stop_token_ids": _token_ids("stop_token_ids", self.stop_token_ids or ()),
            "ignore_eos": _boolean("ignore_eos", self.ignore_eos),
            "logprobs": _optional(
                _integer, "logprobs", self.logprobs, 0, hint="0 reports the sampled token alone, None nothing"
            ),
            "prompt_logprobs": _optional(
                _integer,
                "prompt_logprobs",
                self.prompt_logprobs,
                0,
                hint="0 reports the prompt alone, None nothing",
            ),
            "logit_bias": _biases(self.logit_bias),
            "allowed_token_ids": _optional(_token_ids, "allowed_token_ids", self.allowed_token_ids),
            "bad_words": _strings("bad_words", self.bad_words),
            "seed": _optional(_integer, "seed", self.seed, 0, 2**64 - 1, hint="None lets the engine choose"),
            "detokenize": _boolean("detokenize", self.detokenize),
            "logits_processors": _callables("logits_processors", self.logits_processors),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_together()

    def _check_together(self) -> None:
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}: "
                "raise max_tokens or lower min_tokens"
            )
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise ValueError(
                "allowed_token_ids=[] allows no token at all: name one at least, or use None for all"
            )
        if self.stop and not self.detokenize:
            raise ValueError(
                f"stop={self.stop!r} is looked for in the text, but detokenize=False makes none: "
                "use stop_token_ids, or leave detokenize on"
            )

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken, without a draw."""
        return self.temperature < GREEDY_BELOW

    @property
    def effective_temperature(self) -> float:
        """What the logits are divided by: 1 for greedy, else `temperature`, raised to 0.01 if it is less."""
        return 1.0 if self.is_greedy else max(self.temperature, LOWEST_TEMPERATURE)


def check_vocabulary(params: SamplingParams, vocab_size: int) -> None:
    """Refuse what a model of `vocab_size` tokens cannot honour: ids it lacks, more logprobs than it has tokens.

    Raises `ValueError`, naming the parameter and the offending ids.
    """
    named: dict[str, Iterable[int]] = {
        "stop_token_ids": params.stop_token_ids or (),
        "allowed_token_ids": params.allowed_token_ids or (),
        "logit_bias": params.logit_bias or (),
    }
    for name, ids in named.items():
        if outside := [token_id for token_id in ids if token_id >= vocab_size]:
            raise ValueError(
                f"{name} names the token ids {outside[:8]}, but the vocabulary ends at {vocab_size - 1}: "
                "take them out, or check that they are this model's"
            )
    for name, count in {"logprobs": params.logprobs, "prompt_logprobs": params.prompt_logprobs}.items():
        if count is not None and count > vocab_size:
            raise ValueError(f"{name}={count} is more than the {vocab_size} tokens there are: ask for fewer")


def _refuse(name: str, value: object, bounds: str, hint: str) -> ValueError:
    return ValueError(
        f"{name}={value!r} is out of bounds: it must be {bounds}" + (f" ({hint})" if hint else "")
    )


def _between(low: float, high: float, open_low: bool = False) -> str:
    least = f"more than {low}" if open_low else f"at least {low}"
    return least if math.isinf(high) else f"{least} and at most {high}"


def _integer(name: str, value: object, low: int, high: float = math.inf, hint: str = "") -> int:
    # bool is an Integral in Python, but True for a count is a slip.
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}: it must be an integer")
    if not low <= int(value) <= high:
        raise _refuse(name, value, _between(low, high), hint)
    return int(value)


def _number(
    name: str, value: object, low: float, high: float = math.inf, *, open_low: bool = False, hint: str = ""
) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}: it must be a number")
    number = float(value)
    if not math.isfinite(number) or not low <= number <= high or (open_low and number == low):
        raise _refuse(name, value, _between(low, high, open_low), hint or "and finite")
    return number


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}: it must be True or False")
    return value


def _optional(check: Callable[..., Any], name: str, value: object, *bounds: int, **hint: str) -> Any:
    return None if value is None else check(name, value, *bounds, **hint)


def _items(name: str, values: object) -> tuple[object, ...]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise TypeError(f"{name}={values!r} is a {type(values).__name__}: it must be a list or a tuple")
    return tuple(values)


def _token_ids(name: str, values: object) -> tuple[int, ...]:
    return tuple(_integer(f"{name}[{i}]", value, 0) for i, value in enumerate(_items(name, values)))


def _strings(name: str, values: object) -> tuple[str, ...]:
    given = [values] if isinstance(values, str) else _items(name, () if values is None else values)
    for value in given:
        if not isinstance(value, str):
            raise TypeError(
                f"{name} holds {value!r}, a {type(value).__name__}: give a string or a list of strings"
            )
        if not value:
            raise ValueError(f"{name} holds an empty string, which every text contains: leave it out")
    return tuple(value for value in given if isinstance(value, str))


def _biases(values: object) -> dict[int, float] | None:
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise TypeError(
            f"logit_bias={values!r} is a {type(values).__name__}: it must map token ids to numbers"
        )
    hint = "to forbid a token use bad_words or allowed_token_ids"
    return {
        _integer("a key of logit_bias", token_id, 0): _number(
            f"logit_bias[{token_id}]", bias, -100, 100, hint=hint
        )
        for token_id, bias in values.items()
    }


def _callables(name: str, values: object) -> tuple[LogitsProcessor, ...]:
    given = _items(name, () if values is None else values)
    for value in given:
        if not callable(value):
            raise TypeError(
                f"{name} holds {value!r}, which cannot be called: give functions (ids, logits) -> logits"
            )
    return tuple(value for value in given if callable(value))
