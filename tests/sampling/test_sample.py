import importlib
import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from minillm.sampling import (
    NonFiniteLogitsError,
    NoTokenLeftError,
    ProcessorError,
    SamplingParams,
    SamplingRow,
    draw,
    gather_logprobs,
    probabilities,
    process_logits,
    sample,
    uniform,
)

# The package exports the function of the same name.
SAMPLE = importlib.import_module("minillm.sampling.sample")
INF = math.inf
LAST_U = 1 - 2.0**-53


def make_row(seed=0, prompt=(), output=(), eos=(), forbidden=None, **params):
    return SamplingRow(SamplingParams(**params), seed, prompt, output, eos, forbidden)


def last_of(*sequences):
    """Return a function that forbids the last id of each sequence after all its other ids."""

    def forbidden(output_token_ids):
        begun = [s[-1] for s in sequences if (*output_token_ids, s[-1])[-len(s) :] == s]
        return torch.tensor(begun, dtype=torch.int64)

    return forbidden


def random_logits(*shape, seed=0, scale=3.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


# ---- The definition, slow and in plain Python: what process_logits is held against ----


def softmax(logits):
    peak = max(logits)
    weights = [math.exp(x - peak) for x in logits]
    return [w / sum(weights) for w in weights]


def certain(ok):
    assert ok


def reference(logits, row, sure=certain):
    """The processed logits of one row, as floats; `sure` is told where rounding could not decide what stays."""
    params, logits = row.params, list(logits)
    for i in range(len(logits)):
        if params.allowed_token_ids is not None and i not in params.allowed_token_ids:
            logits[i] = -INF
        if len(row.output_token_ids) < params.min_tokens and i in (
            *row.eos_token_ids,
            *params.stop_token_ids,
        ):
            logits[i] = -INF
        if row.bad_words and i in row.bad_words(row.output_token_ids):
            logits[i] = -INF
        logits[i] += (params.logit_bias or {}).get(i, 0)
        if i in (*row.prompt_token_ids, *row.output_token_ids):
            penalty = params.repetition_penalty
            logits[i] = logits[i] / penalty if logits[i] > 0 else logits[i] * penalty
        count = list(row.output_token_ids).count(i)
        logits[i] -= params.frequency_penalty * count + params.presence_penalty * (count > 0)
    if params.temperature < 1e-5:
        return logits
    logits = [x / max(params.temperature, 0.01) for x in logits]
    if params.min_p:
        lowest = max(logits) + math.log(params.min_p)
        sure(all(abs(x - lowest) > 1e-4 for x in logits))
        logits = [x if x >= lowest else -INF for x in logits]
    best_first = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if params.top_k:
        keep = best_first[: params.top_k]
        logits = [x if i in keep else -INF for i, x in enumerate(logits)]
    if params.top_p < 1:
        probs = softmax(logits)
        reached = list(itertools.accumulate(probs[i] for i in best_first))
        sure(all(abs(mass - params.top_p) > 1e-5 for mass in reached))
        keep = best_first[: 1 + sum(mass < params.top_p for mass in reached)]
        logits = [x if i in keep else -INF for i, x in enumerate(logits)]
    return logits


V = 12
ids = st.integers(0, V - 1)
id_lists = st.lists(ids, max_size=8).map(tuple)
# Quarters have exact sums, so equal logits stay equal through the penalties, and ties abound.
quarters = st.integers(-16, 16).map(lambda n: n / 4)
rows_of_logits = st.lists(quarters, min_size=V, max_size=V)


@st.composite
def sampling_rows(draw_):
    params = {
        "temperature": draw_(st.sampled_from([0.0, 0.001, 0.5, 1.0, 2.0])),
        "top_p": draw_(st.sampled_from([1.0, 0.01, 0.33, 0.71, 0.97])),
        "top_k": draw_(st.sampled_from([0, 1, 3, 11, 12, 40])),
        "min_p": draw_(st.sampled_from([0.0, 0.03, 0.41])),
        "repetition_penalty": draw_(st.sampled_from([1.0, 0.5, 2.0])),
        "presence_penalty": draw_(st.sampled_from([0.0, 0.5, -1.0])),
        "frequency_penalty": draw_(st.sampled_from([0.0, 0.25, -0.5])),
        "min_tokens": draw_(st.sampled_from([0, 4])),
        "stop_token_ids": draw_(id_lists),
        "logit_bias": draw_(st.none() | st.dictionaries(ids, quarters, max_size=3)),
        "allowed_token_ids": draw_(st.none() | st.lists(ids, min_size=1).map(tuple)),
    }
    forbidden = last_of(*draw_(st.lists(st.lists(ids, min_size=1, max_size=3).map(tuple), max_size=3)))
    return make_row(
        0, draw_(id_lists), draw_(id_lists), draw_(st.sampled_from([(), (0,), (0, 5)])), forbidden, **params
    )


@given(st.lists(st.tuples(rows_of_logits, sampling_rows()), min_size=1, max_size=4))
def test_processing_follows_the_definition(batch):
    logits = torch.tensor([values for values, _ in batch])
    rows = [row for _, row in batch]
    expected = [reference(values, row, sure=assume) for values, row in batch]
    if any(max(values) == -INF for values in expected):
        with pytest.raises(NoTokenLeftError):
            process_logits(logits, rows)
        return
    torch.testing.assert_close(process_logits(logits, rows), torch.tensor(expected), atol=1e-4, rtol=1e-5)


# ---- Cost and side effects ----


def test_default_and_greedy_rows_come_back_untouched():
    logits = random_logits(2, 50)
    assert process_logits(logits, [make_row(), make_row(temperature=0)], vocab_size=50) is logits
    assert process_logits(logits, [make_row(temperature=0, top_k=3, top_p=0.5, min_p=0.5)] * 2) is logits


def spoil(output_token_ids, logits):
    output_token_ids.clear()
    return logits.zero_()


@pytest.mark.parametrize("vocab_size", [None, 40])
def test_nothing_given_is_changed(vocab_size):
    row = make_row(
        prompt=[1, 2], output=[3, 3], temperature=0.7, top_k=9, top_p=0.9, min_p=0.01, repetition_penalty=1.2,
        frequency_penalty=0.3, logit_bias={4: 1.0}, min_tokens=5, stop_token_ids=[7], allowed_token_ids=range(30),
        logits_processors=[spoil], logprobs=3, forbidden=last_of((3, 8)),
    )  # fmt: skip
    logits = random_logits(2, 50)
    before = logits.clone()
    sample(logits, [row, make_row()], vocab_size)
    assert torch.equal(logits, before)
    assert row.output_token_ids == [3, 3]


def test_half_precision_is_processed_in_float32():
    logits = random_logits(1, 50).bfloat16()
    assert torch.equal(process_logits(logits, [make_row()]), logits.float())


# ---- The steps whose meaning is worth a sentence ----


def test_min_tokens_masks_eos_and_stop_ids_until_they_are_out():
    logits = torch.zeros(1, 6)
    for done, allowed in ((2, {0, 3, 5}), (3, {0, 1, 2, 3, 4, 5})):
        row = make_row(output=[0] * done, eos=(1, 2), min_tokens=3, stop_token_ids=[4])
        assert set(process_logits(logits, [row]).isfinite().nonzero()[:, 1].tolist()) == allowed


def test_what_would_complete_a_bad_word_is_masked():
    logits = torch.zeros(1, 6)
    for output, masked in (((), [4]), ((1,), [4]), ((1, 2), [3, 4]), ((2, 1), [4]), ((0, 1, 2), [3, 4])):
        row = make_row(output=output, forbidden=last_of((1, 2, 3), (4,), (6,)))  # the model has no token 6
        assert process_logits(logits, [row]).isinf().nonzero()[:, 1].tolist() == masked


def test_processors_run_first_in_order_and_see_the_output():
    def add(output_token_ids, logits):
        return logits + len(output_token_ids)

    def double(_, logits):
        return logits * 2

    row = make_row(output=[1, 2, 3], logits_processors=[add, double], logit_bias={0: 10.0})
    assert process_logits(torch.zeros(1, 2), [row]).tolist() == [[16.0, 6.0]]


@pytest.mark.parametrize("before", [{"top_k": 2}, {"min_p": 0.7}, {"temperature": 0.3}])
def test_top_p_counts_what_the_steps_before_it_left(before):
    """Of 0.4, 0.3, 0.2, 0.1 two tokens reach 0.55; once the others are gone, or less likely, the first one does."""
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    assert process_logits(logits, [make_row(top_p=0.55)]).isfinite().sum() == 2
    assert process_logits(logits, [make_row(top_p=0.55, **before)]).isfinite().sum() == 1


def test_padding_of_the_vocabulary_is_never_sampled_or_reported():
    logits = torch.tensor([[0.0, 1.0, 9.0]] * 2)
    rows = [make_row(temperature=0, logprobs=2), make_row(top_k=1, logprobs=2)]
    result = sample(logits, rows, vocab_size=2)
    assert result.token_ids == [1, 1]
    assert result.logprobs[0][1].logprob == pytest.approx(-math.log(1 + math.exp(-1)), abs=1e-6)
    assert process_logits(logits, rows, vocab_size=2).shape == (2, 3)


def test_a_processor_cannot_bring_the_padding_back():
    seen = []

    def flat(_, logits):
        seen.append(logits.tolist())
        return torch.tensor([0.0, 1.0, 9.0])

    row = make_row(temperature=0, logits_processors=[flat, flat])
    assert sample(torch.tensor([[5.0, 4.0, 9.0]]), [row], vocab_size=2).token_ids == [1]
    assert seen == [[5.0, 4.0, -INF], [0.0, 1.0, -INF]]


def test_of_equal_logits_the_lowest_ids_stay():
    logits = torch.zeros(1, 100_000)
    assert sample(logits, [make_row(temperature=0)]).token_ids == [0]
    logits[0, [70_000, 5, 99_999]] = 1.0
    assert sample(logits, [make_row(temperature=0)]).token_ids == [5]
    assert process_logits(logits, [make_row(top_k=2)]).isfinite().nonzero()[:, 1].tolist() == [5, 70_000]
    assert process_logits(logits, [make_row(top_k=6)]).isfinite().nonzero()[:, 1].tolist() == [
        0,
        1,
        2,
        5,
        70_000,
        99_999,
    ]
    assert process_logits(torch.zeros(1, 8), [make_row(top_p=0.3)]).isfinite().sum() == 3


@pytest.mark.parametrize("scale", [0.01, 1.0, 4.0])
def test_top_p_finds_a_nucleus_of_any_size(scale):
    """Flat, the nucleus is nearly the whole vocabulary, far beyond the first guess; steep, it lies within it."""
    logits = random_logits(2, 20_000, scale=scale)
    kept = process_logits(logits, [make_row(top_p=0.9), make_row(top_p=0.05)]).isfinite()
    for r, top_p in enumerate((0.9, 0.05)):
        probs = np.sort(logits[r].double().softmax(-1).numpy())[::-1]
        size = 1 + int((np.cumsum(probs) < top_p).sum())
        # In float32 the sums of 20,000 probabilities may differ by a few tokens' worth of 1e-6.
        assert abs(int(kept[r].sum()) - size) <= 2e-6 / probs[size - 1] + 1e-9
        assert logits[r][kept[r]].min() >= logits[r][~kept[r]].max()


def test_top_p_just_under_one_keeps_a_row_that_never_reaches_it():
    assert process_logits(torch.zeros(1, 3000), [make_row(top_p=1 - 2.0**-53)]).isfinite().all()


# ---- What cannot be sampled ----


def only_error(logits, row, vocab_size=None):
    """The error of the one row that fails, here between two that do not."""
    logits = torch.cat((torch.zeros_like(logits), logits, torch.zeros_like(logits)))
    result = sample(logits, [make_row(), row, make_row()], vocab_size)
    assert list(result.errors) == [1]
    with pytest.raises(type(result.errors[1])):
        process_logits(logits, [make_row(), row, make_row()], vocab_size)
    return result.errors[1]


@pytest.mark.parametrize("poison", [math.nan, INF])
@pytest.mark.parametrize(
    "params",
    [{}, {"temperature": 0, "logprobs": 2}, {"allowed_token_ids": [3]}],
)
def test_logits_that_are_not_finite_are_errors_of_their_rows(poison, params):
    logits = random_logits(4, 50)
    logits[1, 7] = logits[3, 49] = poison
    result = sample(logits, [make_row(**params)] * 4)
    assert set(result.errors) == {1, 3}
    assert [result.logprobs[r] for r in (1, 3)] == [None, None]
    for error in result.errors.values():
        assert isinstance(error, NonFiniteLogitsError)
        assert f"is {poison} (torch.float32)" in str(error) and "weights are damaged" in str(error)


def test_no_processor_sees_logits_that_are_not_finite():
    error = only_error(torch.full((1, 5), math.nan), make_row(logits_processors=[lambda *_: None]))
    assert isinstance(error, NonFiniteLogitsError)


def test_a_row_of_minus_infinity_is_the_models_fault():
    assert isinstance(only_error(torch.full((1, 5), -INF), make_row()), NonFiniteLogitsError)


def test_a_row_masked_to_nothing_names_what_masked_it():
    row = make_row(eos=(1,), allowed_token_ids=[1], min_tokens=2)
    error = only_error(torch.zeros(1, 5), row)
    assert isinstance(error, NoTokenLeftError)
    assert "allowed_token_ids (1 ids) and min_tokens=2 (the output has 0" in str(error)


def test_finite_logits_of_padding_alone_leave_no_token():
    error = only_error(torch.tensor([[-INF, -INF, 0.0]]), make_row(), vocab_size=2)
    assert isinstance(error, NoTokenLeftError) and "padding" in str(error)


def test_an_overflow_on_the_way_is_not_called_a_mask():
    error = only_error(torch.full((1, 5), 1e30), make_row(prompt=[1], repetition_penalty=1e-30))
    assert isinstance(error, NonFiniteLogitsError) and "repetition_penalty=1e-30" in str(error)


def raises(_, logits):
    raise LookupError("no such state")


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError


def raises_unprintable(_, logits):
    raise Unprintable


WRONG_PROCESSORS = {
    "of type NoneType": lambda _, logits: None,
    "of type list": lambda _, logits: logits.tolist(),
    "of type ndarray": lambda _, logits: logits.numpy(),
    "torch.float32 and shape (1,)": lambda _, logits: logits[:1],
    "torch.float32 and shape (1, 5)": lambda _, logits: logits[None],
    "torch.int64 and shape (5,)": lambda _, logits: logits.long(),
    "torch.bool and shape (5,)": lambda _, logits: logits > 0,
    "torch.complex64": lambda _, logits: logits + 0j,
    "contains nan": lambda _, logits: logits * math.nan,
    "contains inf": lambda _, logits: logits + INF,
    "contains inf ": lambda _, logits: torch.full_like(logits, 1e300, dtype=torch.float64),
}


@pytest.mark.parametrize("says", WRONG_PROCESSORS)
def test_a_processor_that_returns_nonsense_is_an_error_of_its_row(says):
    error = only_error(torch.zeros(1, 5), make_row(logits_processors=[WRONG_PROCESSORS[says]]))
    assert isinstance(error, ProcessorError)
    assert str(error).startswith("logits_processors: ") and says.strip() in str(error)


def exits(_, logits):
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("processor", "error"),
    [
        (raises, LookupError),
        (raises_unprintable, Unprintable),
        (exits, SystemExit),
        (lambda logits: logits, TypeError),
        (lambda _, logits: logits.to("meta"), Exception),
    ],
)
def test_what_a_processor_raises_is_the_error_of_its_row(processor, error):
    found = only_error(torch.zeros(1, 5), make_row(logits_processors=[processor]))
    assert isinstance(found, error)
    if error is LookupError:
        assert found.__notes__ == ["raised by raises of logits_processors"]


def test_an_interrupt_in_a_processor_goes_through():
    def stop(_, logits):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(torch.zeros(1, 5), [make_row(logits_processors=[stop])])


def vandal(output_token_ids, logits):
    """Change everything within reach, then fail."""
    logits.fill_(math.nan)
    if logits._base is not None:
        logits._base.fill_(math.nan)
    output_token_ids.clear()
    raise ValueError


BAD_ROWS = {
    "vandal": {"logits_processors": [vandal]},
    "processor returns None": {"logits_processors": [lambda *_: None]},
    "second processor makes inf": {"logits_processors": [lambda _, x: x, lambda _, x: x * INF]},
    "no token left": {"allowed_token_ids": [2], "min_tokens": 99, "stop_token_ids": [2]},
    "overflow": {"repetition_penalty": 1e-38},
    "NaN from the model": {},
}


@pytest.mark.parametrize("name", BAD_ROWS)
@settings(max_examples=8)
@given(
    st.lists(st.tuples(rows_of_logits, sampling_rows()), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 4), sampling_rows()), min_size=1, max_size=3),
    st.sampled_from([None, V - 1]),
)
def test_a_row_that_fails_changes_no_other(name, good, bad, vocab_size):
    """The good rows, alone and among bad ones, give the same logits, tokens and log-probabilities, bit for bit."""
    for _, row in good:
        row.params.logprobs = 2
    batch = [(values, row, None) for values, row in good]
    for at, row in bad:
        params = row.params.clone()
        params.max_tokens = None
        for parameter, value in BAD_ROWS[name].items():
            setattr(params, parameter, value)
        values = [math.nan if name == "NaN from the model" else 8.0] * V
        failing = SamplingRow(params.clone(), row.seed, range(V), row.output_token_ids)
        batch.insert(min(at, len(batch)), (values, failing, name))
    logits = torch.tensor([values for values, _, _ in batch])
    kept = [r for r, (_, _, name) in enumerate(batch) if name is None]
    rows = [row for _, row, _ in batch]
    errors, alone_errors = {}, {}
    processed = process_logits(logits, rows, vocab_size, errors)
    alone = process_logits(logits[kept], [rows[r] for r in kept], vocab_size, alone_errors)
    assert torch.equal(processed[kept], alone)
    assert all(processed[r].isfinite().nonzero().tolist() == [[0]] for r in errors)
    assert set(errors) == {r for r in range(len(batch)) if r not in kept} | {kept[i] for i in alone_errors}
    among, alone = sample(logits, rows, vocab_size), sample(logits[kept], [rows[r] for r in kept], vocab_size)
    assert [among.token_ids[r] for r in kept] == alone.token_ids
    assert [among.logprobs[r] for r in kept] == alone.logprobs
    for r, error in among.errors.items():
        assert isinstance(error, ValueError)
        assert (among.token_ids[r], among.logprobs[r]) == (0, None)


# ---- Rows of drafts ----


def test_a_row_after_drafts_sees_them_as_output():
    seen = []

    def watch(output_token_ids, logits):
        seen.append(output_token_ids)
        return logits

    def forbid(output_token_ids):
        return torch.tensor([6] if list(output_token_ids) == [3, 4] else [], dtype=torch.int64)

    output = [3]
    row = make_row(
        5, [1, 2], output, (0,), forbid, min_tokens=3, presence_penalty=1.0, logits_processors=[watch]
    )
    after = row.after([4, 5])
    written_out = make_row(
        5,
        [1, 2],
        [3, 4, 5],
        (0,),
        forbid,
        min_tokens=3,
        presence_penalty=1.0,
        logits_processors=[watch],
    )
    assert after == written_out and after.position == 5
    rows = [row, row.after([4]), after]
    processed = process_logits(torch.zeros(3, 8), rows)
    assert seen == [[3], [3, 4], [3, 4, 5]] and output == [3]
    assert processed[:, 0].tolist() == [-INF, -INF, 0.0]  # min_tokens counts the drafts
    assert processed[:, 6].tolist() == [0.0, -INF, 0.0]  # a bad word may begin in the drafts
    assert processed[2].tolist() == process_logits(torch.zeros(1, 8), [written_out])[0].tolist()


def test_a_row_after_drafts_is_not_examined_again(monkeypatch):
    row = make_row(top_k=3)
    monkeypatch.setattr(SamplingRow, "__post_init__", None)
    assert row.after([1]).transforms is row.transforms


# ---- The draw ----


@given(
    st.lists(st.sampled_from([0.0, 1e-30, 1e-12, 0.1, 0.3, 1.0]), min_size=1, max_size=8).filter(any),
    st.sampled_from([0.0, 1e-300, 0.5, LAST_U]) | st.floats(0, 1, exclude_max=True),
)
def test_a_token_of_no_probability_is_never_drawn(weights, u):
    assume(max(weights) > 1e-15)
    for dtype in (torch.float32, torch.float64):
        token_id = int(draw(torch.tensor([weights], dtype=dtype), torch.tensor([u], dtype=torch.float64)))
        assert weights[token_id] > 0


def test_a_draw_inverts_the_cumulative_distribution_in_id_order():
    probs = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]]).expand(6, -1)
    u = torch.tensor([0.0, 0.25 - 1e-12, 0.25, 0.75 - 1e-12, 0.75, LAST_U], dtype=torch.float64)
    assert draw(probs, u).tolist() == [1, 1, 3, 3, 4, 4]


def test_a_sum_short_of_one_does_not_fall_off_the_end():
    assert draw(torch.tensor([[0.3, 0.3, 0.0]]), torch.tensor([LAST_U], dtype=torch.float64)).tolist() == [1]


def test_the_last_u_of_all_draws_the_last_token_for_any_total():
    probs = random_logits(5000, 7).softmax(-1) * torch.linspace(0.01, 3, 5000)[:, None]
    assert set(draw(probs, torch.full((5000,), LAST_U, dtype=torch.float64)).tolist()) == {6}


def test_many_rows_are_drawn_in_parts_without_a_seam(monkeypatch):
    probs, u = random_logits(50, 40).softmax(-1), torch.arange(50, dtype=torch.float64) / 50
    whole = draw(probs, u).tolist()
    monkeypatch.setattr(SAMPLE, "_DRAW_AT_ONCE", 3 * 40)
    assert draw(probs, u).tolist() == whole


def test_a_row_without_probability_is_refused():
    with pytest.raises(ValueError, match="no probability above 0"):
        draw(torch.tensor([[0.5, 0.5], [0.0, 0.0]]), torch.zeros(2, dtype=torch.float64))


def test_greedy_probabilities_are_one_hot():
    processed = torch.tensor([[0.0, 2.0, 2.0], [0.0, 2.0, 2.0]])
    probs = probabilities(processed, [make_row(temperature=0), make_row()])
    assert probs[0].tolist() == [0.0, 1.0, 0.0]
    torch.testing.assert_close(probs[1], processed[1].softmax(-1))


# ---- The distribution, against arithmetic ----

DRAWS = 50_000
LEVEL = 0.001


def fit(token_ids, probs):
    """The p-value of chi-square: how often honest draws would be at least this far from `probs`."""
    counts = Counter(token_ids)
    if any(probs[token_id] == 0 for token_id in counts):
        return 0.0
    possible = [i for i, p in enumerate(probs) if p > 0]
    return stats.chisquare([counts[i] for i in possible], [probs[i] * DRAWS for i in possible]).pvalue


def power(probs, wrong):
    """How likely the test is to notice that draws follow `wrong`: the tail of a noncentral chi-square."""
    possible = [i for i, p in enumerate(probs) if p > 0]
    distance = DRAWS * sum((wrong[i] - probs[i]) ** 2 / probs[i] for i in possible)
    freedom = len(possible) - 1
    return stats.ncx2.sf(stats.chi2.isf(LEVEL, freedom), freedom, distance)


LOGITS = [2.0, 1.5, 1.5, 1.0, 0.5, 0.0, 0.0, -0.5, -1.0, -1.5, -2.0, -3.0]
SETTINGS = [
    {},
    {"temperature": 0.5},
    {"temperature": 1.7, "top_k": 5},
    {"top_p": 0.8},
    {"min_p": 0.1, "temperature": 1.3},
    {"top_k": 9, "top_p": 0.85, "repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2},
]


def draws(params, vary):
    """50,000 tokens: of one seed each, or of one sample at successive positions."""
    rows = [
        SamplingRow(params, i, (1, 4), (3, 3)) if vary == "seed" else SamplingRow(params, 9, range(i), (3, 3))
        for i in range(DRAWS)
    ]
    return sample(torch.tensor(LOGITS).expand(DRAWS, -1), rows).token_ids


@pytest.mark.parametrize("params", SETTINGS, ids=str)
def test_draws_follow_the_distribution(params):
    row = make_row(prompt=(1, 4), output=(3, 3), **params)
    assert fit(draws(row.params, "seed"), softmax(reference(LOGITS, row))) > LEVEL


def test_draws_at_successive_positions_follow_it_too():
    assert fit(draws(SamplingParams(), "position"), softmax(LOGITS)) > LEVEL


def test_the_test_would_notice_a_broken_sampler(monkeypatch):
    """Each fault must fail the test above, and not by luck: its power against every one is over 99.9%."""
    honest = softmax(LOGITS)
    moved = [p + shift for p, shift in zip(honest, [-0.015, 0.015] + [0] * 10, strict=True)]
    faults = {
        "three draws in two hundred moved to the next token": moved,
        "temperature 0.95 for 1": softmax([x / 0.95 for x in LOGITS]),
        "the last token out of reach": [*softmax(LOGITS[:-1]), 0.0],
    }
    for name, wrong in faults.items():
        assert power(honest, wrong) > 0.999, name
        wrong_logits = [math.log(p) if p else -INF for p in wrong]
        with monkeypatch.context() as patch:
            patch.setitem(globals(), "LOGITS", wrong_logits)
            token_ids = draws(SamplingParams(), "seed")
        assert fit(token_ids, honest) < LEVEL, name
    with monkeypatch.context() as patch:
        patch.setattr(SAMPLE, "uniform", lambda *arguments: uniform(*arguments) ** 1.03)
        assert fit(draws(SamplingParams(), "seed"), honest) < LEVEL, "numbers that are not uniform"


# ---- A token is a function of (logits, params, seed, position) ----


def varied_rows():
    settings = [
        {}, {"temperature": 0}, {"temperature": 0.6}, {"top_k": 7}, {"top_p": 0.9}, {"top_k": 40, "top_p": 0.5},
        {"min_p": 0.05}, {"repetition_penalty": 1.4, "top_p": 0.99}, {"presence_penalty": 1.0, "temperature": 2.0},
        {"allowed_token_ids": range(100, 900)}, {"logit_bias": {5: 20.0}, "top_p": 0.2}, {"top_k": 2999},
    ]  # fmt: skip
    return [make_row(1000 + i, range(i), [3, 5, 8], **params) for i, params in enumerate(settings)]


def test_company_and_order_change_no_token():
    rows, logits = varied_rows(), random_logits(12, 3000, scale=2.0)
    logits[4] *= 0.01
    alone = [sample(logits[r : r + 1], [rows[r]]).token_ids[0] for r in range(12)]
    shuffler = random.Random(0)
    for size in (12, 12, 7, 3):
        chosen = shuffler.sample(range(12), size)
        assert sample(logits[chosen], [rows[r] for r in chosen]).token_ids == [alone[r] for r in chosen]


def test_seed_and_position_do_change_it():
    logits = torch.zeros(1, 3000)
    tokens = {
        sample(logits, [make_row(seed, prompt, output)]).token_ids[0]
        for seed, prompt, output in [(0, [1], [2]), (1, [1], [2]), (0, [1, 1], [2]), (0, [1], [2, 2, 2])]
    }
    assert len(tokens) == 4


def test_what_is_prompt_and_what_output_does_not_change_it():
    """A preempted request may come back with its output behind its prompt: the position is what counts."""
    logits = torch.zeros(1, 3000)
    assert sample(logits, [make_row(5, [1, 2], [3])]) == sample(logits, [make_row(5, [1, 2, 3], [])])


# ---- Log-probabilities ----


def test_logprobs_are_of_the_raw_logits_and_only_where_asked():
    logits = random_logits(4, 50)
    params = {"temperature": 0.01, "top_k": 1, "logit_bias": {7: 100.0}}
    rows = [make_row(logprobs=count, **params) for count in (None, 0, 3, -1)]
    result = sample(logits, rows)
    assert result.token_ids == [7] * 4
    assert result.logprobs[0] is None
    assert [len(found) for found in result.logprobs[1:]] == [
        1,
        len({7, *logits[2].topk(3).indices.tolist()}),
        50,
    ]
    expected = logits.log_softmax(-1)
    for r in (1, 2, 3):
        assert next(iter(result.logprobs[r])) == 7
        for token_id, found in result.logprobs[r].items():
            assert found.logprob == pytest.approx(expected[r, token_id].item(), abs=1e-5)
            assert found.rank == 1 + int((logits[r] > logits[r, token_id]).sum())
            assert found.decoded_token is None


@given(st.lists(st.tuples(rows_of_logits, ids), min_size=1, max_size=3), st.integers(0, V))
def test_ranks_break_ties_by_id(batch, k):
    found = gather_logprobs(
        torch.tensor([logits for logits, _ in batch]), torch.tensor([i for _, i in batch]), k
    )
    for (logits, token_id), answer in zip(batch, found, strict=True):
        best_first = sorted(range(V), key=lambda i: (-logits[i], i))
        expected = {i: best_first.index(i) + 1 for i in [token_id, *best_first[:k]]}
        assert [(i, logprob.rank) for i, logprob in answer.items()] == list(expected.items())


def test_logprobs_of_a_padded_vocabulary_count_no_padding():
    """One function for `logprobs` and `prompt_logprobs`. A prompt may contain a token of the padding."""
    logits = torch.tensor([[1.0, 0.0, 9.0, 8.0]] * 2)
    expected = torch.tensor([1.0, 0.0]).log_softmax(-1).tolist()
    own, padding = gather_logprobs(logits, torch.tensor([1, 3]), -1, vocab_size=2)
    assert {i: (found.logprob, found.rank) for i, found in own.items()} == {
        1: (pytest.approx(expected[1]), 2),
        0: (pytest.approx(expected[0]), 1),
    }
    assert list(padding) == [3, 0, 1] and padding[3].logprob == -INF
    [sampled] = sample(logits[:1], [make_row(temperature=0, logprobs=-1)], vocab_size=2).logprobs
    assert sampled == {0: own[0], 1: own[1]}
