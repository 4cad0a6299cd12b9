"""Transforms of the model's logits before sampling: all that a request may ask for, in one fixed order.

    processors, allowed ids, minimum length, bad words, bias, repetition, frequency and presence penalties,
    [greedy decoding stops here] temperature, min-p, top-k, top-p

Each transform is a function `(logits, rows, asking) -> logits` on the whole batch. `asking` lists the rows that need
it, and it runs only if there are any. A request with default parameters therefore pays for none. Transforms change
nothing in place.

A row that cannot be sampled becomes an error of its own request, and does not affect the other rows.

Sources: the order is that of vLLM (v1/sample/sampler.py). The repetition penalty is from Keskar et al., "CTRL: A
Conditional Transformer Language Model" (2019), section 4.1.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minillm.errors import MinillmError
from minillm.sampling.params import LogitsProcessor, SamplingParams
from minillm.sampling.truncation import mask_padding, min_p_mask, top_k_mask, top_p_mask


class LogitsError(MinillmError, ValueError):
    """A request whose next token cannot be sampled."""


class NonFiniteLogitsError(LogitsError):
    """Logits that contain NaN or +inf, or nothing but -inf."""


class NoTokenLeftError(LogitsError):
    """A request whose own constraints forbid every token."""


class ProcessorError(LogitsError):
    """A logits processor that returned something other than one logit per token."""


Forbidden = Callable[[Sequence[int]], Tensor]  # the output's ids -> ids [E] int64 that must not come next


@dataclass(slots=True)
class SamplingRow:
    """The request behind one row of logits: its parameters and the tokens before the one to sample.

    `output_token_ids` may be the live list of a request, and the row follows it as it grows. `bad_words` returns the
    ids that would complete one of `params.bad_words`. All other ids must be in the model's vocabulary. `transforms` are
    those that the request can ever need. They are found once, so keep the row for the life of its request.
    """

    params: SamplingParams
    seed: int
    prompt_token_ids: Sequence[int]
    output_token_ids: Sequence[int]
    eos_token_ids: tuple[int, ...] = ()
    bad_words: Forbidden | None = None
    transforms: frozenset["Transform"] = field(init=False)

    def __post_init__(self) -> None:
        self.transforms = frozenset(transform for transform, needs in _TRANSFORMS.items() if needs(self))

    @property
    def position(self) -> int:
        """Return the absolute position of the token to sample."""
        return len(self.prompt_token_ids) + len(self.output_token_ids)

    def after(self, drafts: Sequence[int]) -> "SamplingRow":
        """Return the row that follows `drafts`, the unverified tokens that speculation put after the output."""
        row = copy.copy(self)
        row.output_token_ids = [*self.output_token_ids, *drafts]
        return row


Transform = Callable[[Tensor, Sequence[SamplingRow], list[int]], Tensor]
Needs = Callable[[SamplingRow], bool]
_TRANSFORMS: dict[Transform, Needs] = {}  # in the order of this file, in which they run


def _transform(needs: Needs) -> Callable[[Transform], Transform]:
    """Register the next transform. It runs for the rows for which `needs` returns True."""

    def register(transform: Transform) -> Transform:
        _TRANSFORMS[transform] = needs
        return transform

    return register


def process_logits(
    logits: Tensor,
    rows: Sequence[SamplingRow],
    vocab_size: int | None = None,
    errors: dict[int, BaseException] | None = None,
) -> Tensor:
    """Return the logits [R, V] float32 to sample from, with -inf for forbidden tokens.

    `logits` [R, V] has any floating dtype and is not changed. If no row needs a change, a float32 input is returned as
    it is. Columns from `vocab_size` on are padding and never sampled.

    A row that cannot be sampled is added to `errors`, and token 0 is the only one that it allows. Without `errors`, the
    first such row raises its `LogitsError`.
    """
    failed = {} if errors is None else errors
    failed.update((r, _damaged(peak, logits)) for r, peak in _infinite_peaks(logits))
    processed = mask_padding(_set_aside(logits, failed).float(), vocab_size)  # [R, V]
    if any(row.params.logits_processors for row in rows):
        processed = _run_processors(processed, rows, vocab_size, failed)
    needed = frozenset[Transform]().union(*(row.transforms for row in rows))
    for transform in _TRANSFORMS:
        if transform in needed:
            asking = [r for r, row in enumerate(rows) if transform in row.transforms and r not in failed]
            processed = transform(processed, rows, asking)
    if processed is not logits:
        unfit = {r: _unfit(peak, rows[r]) for r, peak in _infinite_peaks(processed)}
        processed = _set_aside(processed, unfit)
        failed.update(unfit)
    if errors is None:
        for error in failed.values():
            raise error
    return processed


def _run_processors(
    logits: Tensor, rows: Sequence[SamplingRow], vocab_size: int | None, errors: dict[int, BaseException]
) -> Tensor:
    """Call the processors of all rows without an error. A processor that fails adds its row to `errors`."""
    logits = logits.clone()
    for r, row in enumerate(rows):
        if r in errors:
            continue
        try:
            for processor in row.params.logits_processors or ():
                answer = _run_processor(processor, row.output_token_ids, logits[r])
                logits[r] = mask_padding(answer, vocab_size)
        except (Exception, SystemExit) as error:
            errors[r] = error
    return _set_aside(logits, errors)


def _run_processor(processor: LogitsProcessor, output_token_ids: Sequence[int], logits: Tensor) -> Tensor:
    """Return the processor's logits [V] float32, given copies of the output and of `logits` [V].

    An error of the processor is raised unchanged, with a note that names the processor.
    """
    name = getattr(processor, "__qualname__", type(processor).__name__)
    try:
        answer = processor(list(output_token_ids), logits.clone())
    except (Exception, SystemExit) as error:
        error.add_note(f"raised by {name} of logits_processors")
        raise
    problem = _problem(answer, logits)
    if problem is None:
        return answer.detach().to(logits)
    raise ProcessorError(
        f"logits_processors: {name} returned {problem}. It must return a floating-point tensor of shape "
        f"{tuple(logits.shape)}, one logit per token, without NaN or +inf."
    )


def _problem(answer: object, logits: Tensor) -> str | None:
    if not isinstance(answer, Tensor):
        return f"an object of type {type(answer).__name__}"
    if answer.shape != logits.shape or not answer.is_floating_point():
        return f"a tensor of {answer.dtype} and shape {tuple(answer.shape)}"
    peak = answer.float().amax().item()
    return f"a tensor that contains {peak}" if math.isnan(peak) or peak == math.inf else None


@_transform(lambda row: row.params.allowed_token_ids is not None)
def _keep_allowed(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    forbidden = torch.zeros_like(logits, dtype=torch.bool)
    for r in asking:
        forbidden[r] = True
        forbidden[r, list(rows[r].params.allowed_token_ids or ())] = False
    return logits.masked_fill(forbidden, -math.inf)


@_transform(lambda row: row.params.min_tokens > 0)
def _mask_early_stops(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    """Forbid all tokens that end the output until it has `min_tokens` tokens."""
    entries = (
        (r, token_id, -math.inf)
        for r in asking
        if len(rows[r].output_token_ids) < rows[r].params.min_tokens
        for token_id in {*rows[r].eos_token_ids, *(rows[r].params.stop_token_ids or ())}
    )
    return _add_entries(logits, entries)


@_transform(lambda row: row.bad_words is not None)
def _mask_bad_words(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    """Mask the tokens that would complete a bad word."""
    forbidden = torch.zeros_like(logits, dtype=torch.bool)
    for r in asking:
        row = rows[r]
        assert row.bad_words is not None
        ids = row.bad_words(row.output_token_ids)  # [E]
        # A tokenizer may have more tokens than the model.
        forbidden[r, ids[ids < logits.shape[-1]].to(logits.device)] = True
    return logits.masked_fill(forbidden, -math.inf)


@_transform(lambda row: bool(row.params.logit_bias))
def _add_bias(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    entries = (
        (r, token_id, bias) for r in asking for token_id, bias in (rows[r].params.logit_bias or {}).items()
    )
    return _add_entries(logits, entries)


@_transform(lambda row: row.params.repetition_penalty != 1)
def _penalise_repetition(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    """Divide the logit of every token seen so far by the penalty if it is positive, and multiply it otherwise."""
    entries = [
        (r, token_id, rows[r].params.repetition_penalty)
        for r in asking
        for token_id in {*rows[r].prompt_token_ids, *rows[r].output_token_ids}
    ]
    if not entries:
        return logits
    where, penalty = _to_tensors(entries, logits)
    seen = logits[where]  # [E]
    return logits.index_put(where, torch.where(seen > 0, seen / penalty, seen * penalty))


@_transform(lambda row: bool(row.params.frequency_penalty or row.params.presence_penalty))
def _penalise_output(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    """Subtract the frequency penalty for each time that a token was output, and the presence penalty once."""
    entries = (
        (r, token_id, -rows[r].params.frequency_penalty * count - rows[r].params.presence_penalty)
        for r in asking
        for token_id, count in Counter(rows[r].output_token_ids).items()
    )
    return _add_entries(logits, entries)


@_transform(lambda row: row.params.effective_temperature != 1)
def _apply_temperature(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    temperatures = [row.params.effective_temperature for row in rows]
    return logits / torch.tensor(temperatures, device=logits.device)[:, None]


@_transform(lambda row: row.params.min_p > 0)
def _apply_min_p(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    def keep(logits: Tensor, chosen: list[SamplingRow]) -> Tensor:
        return min_p_mask(logits, [row.params.min_p for row in chosen])

    return _truncate(logits, rows, asking, keep)


@_transform(lambda row: row.params.top_k > 0)
def _apply_top_k(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    def keep(logits: Tensor, chosen: list[SamplingRow]) -> Tensor:
        return top_k_mask(logits, [row.params.top_k for row in chosen])

    return _truncate(logits, rows, [r for r in asking if rows[r].params.top_k < logits.shape[-1]], keep)


@_transform(lambda row: row.params.top_p < 1)
def _apply_top_p(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    def keep(logits: Tensor, chosen: list[SamplingRow]) -> Tensor:
        return top_p_mask(logits.softmax(-1), [row.params.top_p for row in chosen])

    return _truncate(logits, rows, asking, keep)


def _to_tensors(
    entries: Sequence[tuple[int, int, float]], logits: Tensor
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Convert entries (row, token id, value) to an index into `logits` [R, V] and the values, all [E]."""
    row, token_id, value = zip(*entries, strict=True)
    device = logits.device
    index = torch.tensor(row, device=device), torch.tensor(token_id, device=device)
    return index, torch.tensor(value, dtype=logits.dtype, device=device)


def _add_entries(logits: Tensor, entries: Iterable[tuple[int, int, float]]) -> Tensor:
    """Add a value to a few of the `logits` [R, V]. Each place occurs once in `entries`."""
    listed = list(entries)
    if not listed:
        return logits
    where, value = _to_tensors(listed, logits)
    return logits.index_put(where, logits[where] + value)


def _truncate(
    logits: Tensor,
    rows: Sequence[SamplingRow],
    asking: list[int],
    keep: Callable[[Tensor, list[SamplingRow]], Tensor],
) -> Tensor:
    """Mask the tokens that `keep` drops, in the rows `asking` only."""
    if not asking:
        return logits
    chosen = [rows[r] for r in asking]
    if len(asking) == len(rows):
        return torch.where(keep(logits, chosen), logits, -math.inf)
    index = torch.tensor(asking, device=logits.device)
    part = logits[index]  # [A, V]
    return logits.index_copy(0, index, torch.where(keep(part, chosen), part, -math.inf))


def _infinite_peaks(logits: Tensor) -> list[tuple[int, float]]:
    """Return (row, maximum) for each row of `logits` [R, V] whose maximum is not a finite number."""
    # One pass finds all three: the maximum is NaN if any logit is NaN, +inf if one is +inf, and -inf if all are -inf.
    return [(r, peak) for r, peak in enumerate(logits.amax(-1).tolist()) if not math.isfinite(peak)]


def _set_aside(logits: Tensor, errors: Iterable[int]) -> Tensor:
    """Return `logits` [R, V] with token 0 as the only one allowed in the rows of `errors`; a copy if there are any."""
    if failed := list(errors):
        logits = logits.clone()
        logits[failed] = -math.inf
        logits[failed, 0] = 0
    return logits


def _damaged(peak: float, logits: Tensor) -> NonFiniteLogitsError:
    return NonFiniteLogitsError(
        f"the largest logit of the model is {peak} ({logits.dtype}): an activation overflowed, or the weights are "
        "damaged. Use float32, or bfloat16 instead of float16. If that does not help, load the weights again."
    )


def _unfit(peak: float, row: SamplingRow) -> LogitsError:
    if peak != -math.inf:
        params = row.params
        return NonFiniteLogitsError(
            f"a logit became {peak} when repetition_penalty={params.repetition_penalty} and "
            f"temperature={params.temperature} were applied. Move them closer to 1, or make the logits of "
            "your logits_processors smaller."
        )
    blamed = " and ".join(_constraints(row)) or "the model, whose only finite logits are of padding"
    return NoTokenLeftError(
        f"no token is left to sample: every one is forbidden by {blamed}. Relax these constraints."
    )


def _constraints(row: SamplingRow) -> Iterator[str]:
    params = row.params
    if params.logits_processors:
        yield f"logits_processors ({len(params.logits_processors)})"
    if params.allowed_token_ids is not None:
        yield f"allowed_token_ids ({len(params.allowed_token_ids)} ids)"
    if len(row.output_token_ids) < params.min_tokens:
        yield f"min_tokens={params.min_tokens} (the output has {len(row.output_token_ids)} and may not end yet)"
    if row.bad_words is not None:
        yield f"bad_words ({len(params.bad_words or ())})"
