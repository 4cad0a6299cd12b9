"""From the model's logits to the logits that are sampled: everything a request may ask for, in one fixed order.

    processors, allowed ids, minimum length, bad words, bias, repetition, frequency and presence penalties,
    [greedy stops here] temperature, min-p, top-k, top-p

Each step is a function `(logits, rows, asking) -> logits` on the whole batch, called where some rows, `asking`, want
it: the default row pays for none. It changes nothing in place, so that any step may be lifted out and read alone.

Sources: the order is vLLM's (v1/sample/sampler.py); the repetition penalty is from Keskar et al., "CTRL: A
Conditional Transformer Language Model" (2019), section 4.1.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minillm.errors import MinillmError
from minillm.sampling.params import SamplingParams
from minillm.sampling.truncation import min_p_mask, top_k_mask, top_p_mask


class LogitsError(MinillmError, ValueError):
    """Rows that cannot be sampled. `rows` are their indices in the batch, so that only those requests need to end."""

    def __init__(self, message: str, rows: list[int]):
        super().__init__(message)
        self.rows = rows


class NonFiniteLogitsError(LogitsError):
    """The model produced NaN or +inf, or nothing but -inf."""


class NoTokenLeftError(LogitsError):
    """A request's own constraints leave it no token with a finite logit."""


Forbidden = Callable[[Sequence[int]], Tensor]  # the output's ids -> ids [E] int64 that must not come next


@dataclass(slots=True)
class SamplingRow:
    """One row of logits: whose it is, what it asks for and what came before it.

    With speculation a request has several rows in a step; `output_token_ids` then ends with the drafts before this
    position. `bad_words` gives the ids that would complete one of `params.bad_words` after the output. Every other id
    must lie in the model's vocabulary.
    """

    params: SamplingParams
    seed: int
    prompt_token_ids: Sequence[int]
    output_token_ids: Sequence[int]
    eos_token_ids: tuple[int, ...] = ()
    bad_words: Forbidden | None = None
    steps: frozenset["Step"] = field(init=False)  # what it may ever ask of `process_logits`

    def __post_init__(self) -> None:
        self.steps = frozenset(step for step, asks in _STEPS.items() if asks(self))

    @property
    def position(self) -> int:
        """The absolute position of the token drawn from this row."""
        return len(self.prompt_token_ids) + len(self.output_token_ids)


Step = Callable[[Tensor, Sequence[SamplingRow], list[int]], Tensor]
Asks = Callable[[SamplingRow], bool]
_STEPS: dict[Step, Asks] = {}  # in their order, which is that of this file


def _step(asks: Asks) -> Callable[[Step], Step]:
    """The next step; for rows that `asks` says may want it."""

    def add(step: Step) -> Step:
        _STEPS[step] = asks
        return step

    return add


def process_logits(logits: Tensor, rows: Sequence[SamplingRow], vocab_size: int | None = None) -> Tensor:
    """The logits [R, V] float32 that row r is sampled from, with -inf for what it must not be.

    `logits` [R, V] is of any floating dtype and is not changed (though, where no row asks for anything, a float32 input
    is returned as it came). Columns from `vocab_size` on are padding and never sampled. Greedy rows stop before the
    temperature. Raises `NonFiniteLogitsError` for a row of NaN or +inf, `NoTokenLeftError` for one masked to nothing.
    """
    _check_finite(logits)
    processed = logits.float()  # [R, V]
    if vocab_size is not None and vocab_size < logits.shape[-1]:
        processed = processed.clone()
        processed[:, vocab_size:] = -math.inf
    wanted = frozenset[Step]().union(*(row.steps for row in rows))
    for step in _STEPS:
        if step in wanted:
            processed = step(processed, rows, [r for r, row in enumerate(rows) if step in row.steps])
    if processed is not logits:
        _check_something_left(processed, rows)
    return processed


@_step(lambda row: bool(row.params.logits_processors))
def _run_processors(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    logits = logits.clone()
    for r in asking:
        for processor in rows[r].params.logits_processors or ():
            answer = processor(list(rows[r].output_token_ids), logits[r])
            if answer.shape != logits[r].shape:
                raise ValueError(
                    f"logits_processors: {processor!r} returned shape {tuple(answer.shape)} where it got "
                    f"{tuple(logits[r].shape)}: it must return one logit for every token"
                )
            logits[r] = answer
    return logits


@_step(lambda row: row.params.allowed_token_ids is not None)
def _keep_allowed(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    forbidden = torch.zeros_like(logits, dtype=torch.bool)
    for r in asking:
        forbidden[r] = True
        forbidden[r, list(rows[r].params.allowed_token_ids or ())] = False
    return logits.masked_fill(forbidden, -math.inf)


@_step(lambda row: row.params.min_tokens > 0)
def _mask_early_stops(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    """Until `min_tokens` are out, nothing that could end the output."""
    entries = (
        (r, token_id, -math.inf)
        for r in asking
        if len(rows[r].output_token_ids) < rows[r].params.min_tokens
        for token_id in {*rows[r].eos_token_ids, *(rows[r].params.stop_token_ids or ())}
    )
    return _add_entries(logits, entries)


@_step(lambda row: row.bad_words is not None)
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


@_step(lambda row: bool(row.params.logit_bias))
def _add_bias(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    entries = (
        (r, token_id, bias) for r in asking for token_id, bias in (rows[r].params.logit_bias or {}).items()
    )
    return _add_entries(logits, entries)


@_step(lambda row: row.params.repetition_penalty != 1)
def _penalise_repetition(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    """Make every token seen less likely: a positive logit is divided by the penalty, a negative one multiplied."""
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


@_step(lambda row: bool(row.params.frequency_penalty or row.params.presence_penalty))
def _penalise_output(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    """Take off the frequency penalty for each time a token was output, and the presence penalty once."""
    entries = (
        (r, token_id, -rows[r].params.frequency_penalty * count - rows[r].params.presence_penalty)
        for r in asking
        for token_id, count in Counter(rows[r].output_token_ids).items()
    )
    return _add_entries(logits, entries)


@_step(lambda row: row.params.effective_temperature != 1)
def _apply_temperature(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    temperatures = [row.params.effective_temperature for row in rows]
    return logits / torch.tensor(temperatures, device=logits.device)[:, None]


@_step(lambda row: row.params.min_p > 0 and not row.params.is_greedy)
def _apply_min_p(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    def keep(logits: Tensor, chosen: list[SamplingRow]) -> Tensor:
        return min_p_mask(logits, [row.params.min_p for row in chosen])

    return _truncate(logits, rows, asking, keep)


@_step(lambda row: row.params.top_k > 0 and not row.params.is_greedy)
def _apply_top_k(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    def keep(logits: Tensor, chosen: list[SamplingRow]) -> Tensor:
        return top_k_mask(logits, [row.params.top_k for row in chosen])

    return _truncate(logits, rows, [r for r in asking if rows[r].params.top_k < logits.shape[-1]], keep)


@_step(lambda row: row.params.top_p < 1 and not row.params.is_greedy)
def _apply_top_p(logits: Tensor, rows: Sequence[SamplingRow], asking: list[int]) -> Tensor:
    def keep(logits: Tensor, chosen: list[SamplingRow]) -> Tensor:
        return top_p_mask(logits.softmax(-1), [row.params.top_p for row in chosen])

    return _truncate(logits, rows, asking, keep)


def _to_tensors(
    entries: Sequence[tuple[int, int, float]], logits: Tensor
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Entries (row, token id, value) as an index into `logits` [R, V] and the values, all [E]."""
    row, token_id, value = zip(*entries, strict=True)
    device = logits.device
    index = torch.tensor(row, device=device), torch.tensor(token_id, device=device)
    return index, torch.tensor(value, dtype=logits.dtype, device=device)


def _add_entries(logits: Tensor, entries: Iterable[tuple[int, int, float]]) -> Tensor:
    """`logits` [R, V] plus a value at a few places, each named once."""
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
    """Mask what `keep` drops, in the rows that ask; the others do not pay."""
    if not asking:
        return logits
    chosen = [rows[r] for r in asking]
    if len(asking) == len(rows):
        return torch.where(keep(logits, chosen), logits, -math.inf)
    index = torch.tensor(asking, device=logits.device)
    part = logits[index]  # [A, V]
    return logits.index_copy(0, index, torch.where(keep(part, chosen), part, -math.inf))


def _unfit_rows(logits: Tensor) -> list[int]:
    # A maximum is NaN if any is, and infinite if one is +inf or all are -inf: one pass, one number a row to look at.
    return [r for r, peak in enumerate(logits.amax(-1).tolist()) if not math.isfinite(peak)]


def _listed(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:8])) + (", …" if len(rows) > 8 else "")


def _check_finite(logits: Tensor) -> None:
    if unfit := _unfit_rows(logits):
        peak = logits[unfit[0]].amax().item()
        raise NonFiniteLogitsError(
            f"logits of row {_listed(unfit)} of {len(logits)} have no finite maximum (row {unfit[0]}: "
            f"{peak}, dtype {logits.dtype}): an activation overflowed (try float32, or bfloat16 for float16), or the "
            "weights are damaged (load them again)",
            unfit,
        )


def _check_something_left(processed: Tensor, rows: Sequence[SamplingRow]) -> None:
    unfit = _unfit_rows(processed)
    if not unfit:
        return
    peak = processed[unfit[0]].amax().item()
    if peak != -math.inf:
        raise NonFiniteLogitsError(
            f"logits of row {_listed(unfit)} of {len(rows)} overflowed on the way (row {unfit[0]}: {peak}): bring "
            "repetition_penalty and temperature nearer to 1, or look into logits_processors",
            unfit,
        )
    blamed = " and ".join(_constraints(rows[unfit[0]]))
    raise NoTokenLeftError(
        f"row {_listed(unfit)} of {len(rows)} has no token left to sample: every one is forbidden by "
        f"{blamed or 'the padding of the vocabulary'}; loosen that",
        unfit,
    )


def _constraints(row: SamplingRow) -> Iterator[str]:
    params = row.params
    if params.logits_processors:
        yield f"logits_processors ({len(params.logits_processors)})"
    if params.allowed_token_ids is not None:
        yield f"allowed_token_ids ({len(params.allowed_token_ids)} ids)"
    if len(row.output_token_ids) < params.min_tokens:
        yield f"min_tokens={params.min_tokens} (only {len(row.output_token_ids)} are out, so that none may stop)"
    if row.bad_words is not None:
        yield f"bad_words ({len(params.bad_words or ())})"
