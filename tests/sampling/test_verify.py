"""Rejection sampling gives exactly the model's distribution, and this test would notice if it did not.

The model here is a table: the logits after each token. The draft model is another table. So the law of all tokens is a
sum that a computer can write down, and 50,000 requests are compared with it. Each classic mistake is made on purpose,
and the same comparison must find it.
"""

import importlib
import inspect
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from minillm.sampling import (
    NO_TOKEN,
    Drafts,
    NonFiniteLogitsError,
    NoTokenLeftError,
    SamplingParams,
    SamplingRow,
    Stream,
    draw,
    probabilities,
    process_logits,
    sample,
    uniform,
    verify,
)

VERIFY = importlib.import_module("minillm.sampling.verify")
V = 6
PADDED = 8  # columns of the logits; the last two stand for no token
PROMPT = (3, 1)
NUM_REQUESTS = 50_000
LOWEST_P, SURELY_WRONG = 1e-3, 1e-6
PARAMS = {
    "plain": {},
    "temperature and top-k": {"temperature": 0.6, "top_k": 4},
    "top-p and min-p": {"top_p": 0.9, "min_p": 0.1},
    "penalties": {"frequency_penalty": 1.5, "presence_penalty": 0.5, "repetition_penalty": 1.3},
    "bias": {"logit_bias": {0: 1.0, 4: -1.0}, "allowed_token_ids": [0, 1, 2, 4]},
    "all": {
        "temperature": 1.4, "top_k": 5, "top_p": 0.95, "min_p": 0.02, "frequency_penalty": 0.8, "logit_bias": {2: 0.7},
    },
}  # fmt: skip


def table(seed, scale=1.2):
    """Logits [V, PADDED] after each token. Those of the padding are the highest."""
    logits = torch.randn(V, PADDED, generator=torch.Generator().manual_seed(seed)) * scale
    logits[:, V:] = 9.0
    return logits


TARGET = table(1)
DRAFT = probabilities(
    process_logits(table(2), [SamplingRow(SamplingParams(), 0, (), ()) for _ in range(V)], V),
    [SamplingRow(SamplingParams(), 0, (), ()) for _ in range(V)],
)  # [V, PADDED], the distribution of a draft after each token


@dataclass
class Pair:
    """Requests with `params` that are decoded with the verifier `verify`, each with its own number of drafts."""

    params: SamplingParams
    verify: object = verify
    after: object = SamplingRow.after
    most: int = 4
    seed: int = 0
    steps: list = field(default_factory=list)

    def run(self, num_requests, num_tokens):
        """Return the first `num_tokens` tokens of each request, and the tokens of its first step."""
        rows = [SamplingRow(self.params, self.seed + i, PROMPT, []) for i in range(num_requests)]
        first, active, ks = None, list(range(num_requests)), np.arange(num_requests) % (self.most + 1)
        while active:
            found = self.step([rows[i] for i in active], ks[active])
            first = found if first is None else first
            for i, tokens in zip(active, found, strict=True):
                rows[i].output_token_ids.extend(tokens)
            active = [i for i in active if len(rows[i].output_token_ids) < num_tokens]
        return [tuple(row.output_token_ids[:num_tokens]) for row in rows], first

    def step(self, rows, ks):
        """Draft ks[r] tokens for each request, verify them, and return the tokens of each: the engine's step."""
        seeds, last = (
            [row.seed for row in rows],
            np.array([(*PROMPT, *row.output_token_ids)[-1] for row in rows]),
        )
        positions, drafted, probs = np.array([row.position for row in rows]), [last], []
        for j in range(max(ks)):
            q = DRAFT[drafted[-1]]
            drafted.append(draw(q, torch.from_numpy(uniform(seeds, positions + j, Stream.DRAFT))).numpy())
            probs.append(q)
        tokens = np.stack(drafted, 1)  # [R, 1 + most]
        q = torch.stack(probs, 1) if probs else torch.empty(len(rows), 0, PADDED)
        drafts, every, before = [], [], []
        for r, (row, k) in enumerate(zip(rows, ks.tolist(), strict=True)):
            ids = tokens[r, 1 : k + 1].tolist()
            drafts.append(Drafts(ids, q[r, :k]))
            every += [row, *(self.after(row, ids[:i]) for i in range(1, k + 1))]
            before += tokens[r, : k + 1].tolist()
        sampled = self.verify(TARGET[before], every, drafts, V)
        assert not sampled.errors
        found, start = [], 0
        for k in ks.tolist():
            kept = sampled.token_ids[start : start + k + 1]
            found.append([token for token in kept if token != NO_TOKEN])
            start += k + 1
        return found

    def law(self, history):
        """Return p [V] after the tokens `history`, in float64."""
        row = SamplingRow(self.params, 0, PROMPT, list(history))
        logits = TARGET[[(*PROMPT, *history)[-1]]]
        return probabilities(process_logits(logits, [row], V), [row])[0, :V].double().numpy()

    def law_of_tokens(self, num_tokens):
        """Return the probability of each tuple of tokens, if the model alone writes them."""
        law = {(): 1.0}
        for _ in range(num_tokens):
            law = {
                (*history, t): mass * p
                for history, mass in law.items()
                for t, p in enumerate(self.law(history) if mass else np.zeros(V))
            }
        return law

    def law_of_a_step(self, k):
        """Return the probability of what one step with k drafts appends: accepted drafts and one more token.

        A draft t is drawn and accepted with the probability q(t) min(1, p(t) / q(t)) = min(p(t), q(t)). A draft is
        rejected, and t comes instead, with the probability max(p(t) - q(t), 0).
        """
        law, accepted = {}, {(): 1.0}
        for _ in range(k):
            longer = {}
            for history, mass in accepted.items():
                p, q = self.law(history), DRAFT[(*PROMPT, *history)[-1], :V].double().numpy()
                for t in range(V):
                    longer[(*history, t)] = mass * min(p[t], q[t])
                    law[(*history, t)] = mass * max(p[t] - q[t], 0)
            accepted = longer
        for history, mass in accepted.items():
            for t, p in enumerate(self.law(history)):
                law[(*history, t)] = mass * p
        return law


def binned(counts, law):
    """Return the observed and the expected counts. Cells that expect fewer than 5 are put together."""
    total, rare = sum(counts.values()), [0.0, 0.0]
    observed, expected = [], []
    for cell in sorted(law, key=law.get):
        rare = [rare[0] + counts.get(cell, 0), rare[1] + total * law[cell]]
        if rare[1] >= 5:
            observed.append(rare[0]), expected.append(rare[1])
            rare = [0.0, 0.0]
    observed[-1] += rare[0]
    expected[-1] += rare[1]
    return np.array(observed), np.array(expected)


@dataclass(frozen=True)
class ChiSquare:
    statistic: float
    dof: int
    draws: int

    @classmethod
    def of(cls, tuples, law):
        """Compare draws with a law. A draw that the law excludes makes the statistic infinite."""
        counts = Counter(tuples)
        if any(law.get(cell, 0) == 0 for cell in counts):
            return cls(math.inf, len(law) - 1, counts.total())
        observed, expected = binned(counts, law)
        statistic = ((observed - expected) ** 2 / expected).sum()
        return cls(float(statistic), len(expected) - 1, counts.total())

    @property
    def p_value(self):
        return float(stats.chi2.sf(self.statistic, self.dof))

    def power(self, draws):
        """Return the probability that `draws` such draws have a p-value below `LOWEST_P`.

        The statistic of n draws from another law is noncentral chi-square. Its noncentrality is n times the squared
        effect, and the statistic's mean is `dof` more than that. So this comparison estimates the effect.
        """
        if math.isinf(self.statistic):
            return 1.0
        noncentrality = max(0.0, self.statistic - self.dof) * draws / self.draws
        return power(noncentrality, self.dof)


def power(noncentrality, dof):
    return float(stats.ncx2.sf(stats.chi2.isf(LOWEST_P, dof), dof, noncentrality))


def comparisons(pair, num_requests=NUM_REQUESTS, num_tokens=3):
    """Compare the joint law of the first tokens, each token's own law, and the law of each request's first step."""
    tokens, first = pair.run(num_requests, num_tokens)
    law = pair.law_of_tokens(num_tokens)
    found = {"joint": ChiSquare.of(tokens, law)}
    for i in range(num_tokens):
        marginal = Counter()
        for cell, mass in law.items():
            marginal[cell[i]] += mass
        found[f"token {i}"] = ChiSquare.of([one[i] for one in tokens], marginal)
    for k in range(pair.most + 1):
        steps = map(tuple, first[k :: pair.most + 1])
        found[f"step of {k}"] = ChiSquare.of(steps, pair.law_of_a_step(k))
    return found


# ---- The law, and the mistakes that break it ----


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMS)
def test_the_law_of_the_tokens_is_that_of_the_model_alone(name):
    found = comparisons(Pair(SamplingParams(**PARAMS[name])))
    assert found["joint"].draws >= 50_000
    p_values = {what: one.p_value for what, one in found.items()}
    assert min(p_values.values()) > LOWEST_P, p_values


def test_the_comparison_would_notice_one_percent():
    """Of 50,000 tokens, one in a hundred is token 1 that should be token 0: it is noticed in 9,990 of 10,000 runs."""
    law = Pair(SamplingParams()).law(())
    effect = 0.01**2 / law[0] + 0.01**2 / law[1]
    assert power(NUM_REQUESTS * effect, V - 1) > 0.999


def source_with(*changes):
    """Return `verify` from its own source after `changes`, pairs of the old text and the new one."""
    source = inspect.getsource(VERIFY)
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} is no longer in verify.py: adapt this mistake"
        source = source.replace(old, new)
    namespace = {"__name__": "mistaken"}
    exec(compile(source, "mistaken", "exec"), namespace)
    return namespace["verify"]


def after_as_prompt(row, drafts):
    """Put the drafts where no penalty counts them. The position stays right."""
    row = row.after([])
    row.prompt_token_ids = [*row.prompt_token_ids, *drafts]
    return row


ALL_ACCEPTED = "((num_accepted == num_drafts) & (num_drafts > 0))"
TOKEN = "    token_ids[last] = draw(weights, u)\n"
MISTAKES = {
    "none": (),
    "accept all": (("return p_x / q_x", "return p_x / q_x + 1"),),
    "no residual": (("corrected[:, None] & (mass", "~corrected[:, None] & (mass"),),
    "residual not clipped": ((".clamp_min(0)", ".abs()"),),
    "residual of another draft": (("(first_draft + num_accepted).clamp_max", "first_draft.clamp_max"),),
    "no bonus": ((TOKEN, f"{TOKEN}    token_ids[last[{ALL_ACCEPTED}]] = NO_TOKEN\n"),),
    "the bonus of the row before": (("p[last].double()", f"p[last - {ALL_ACCEPTED}.long()].double()"),),
    "the draft's numbers accept": (("Stream.ACCEPT", "Stream.DRAFT"),),
    "the numbers of acceptance correct": (("(Stream.RESIDUAL, corrected)", "(Stream.ACCEPT, corrected)"),),
}


def weakest(pair):
    found = comparisons(pair, NUM_REQUESTS // 5)
    return min(found.values(), key=lambda one: one.p_value)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", [*MISTAKES, "penalties without drafts"])
def test_a_mistake_is_noticed_in_a_fifth_of_the_draws(mistake):
    """So the comparison above misses none of them: its power against the smallest effect is over 0.999999."""
    changes = MISTAKES.get(mistake, ())
    params = SamplingParams(**PARAMS["penalties" if mistake == "penalties without drafts" else "plain"])
    after = after_as_prompt if mistake == "penalties without drafts" else SamplingRow.after
    found = weakest(Pair(params, source_with(*changes), after, most=2))
    if mistake == "none":
        assert found.p_value > LOWEST_P
    else:
        assert found.p_value < SURELY_WRONG
        assert found.power(NUM_REQUESTS) > 0.999999


# ---- Single cases ----


def rows_after(row, drafts):
    return [row, *(row.after(drafts[:i]) for i in range(1, len(drafts) + 1))]


def row_of(seed=0, output=(), **params):
    return SamplingRow(SamplingParams(**params), seed, PROMPT, list(output))


def logits_for(p):
    """Return logits whose softmax is p."""
    return torch.as_tensor(p, dtype=torch.float64).log().float()


def verify_with(monkeypatch, numbers, logits, rows, drafts, vocab_size=None):
    """Verify with `numbers[stream]` as the random number of each row."""

    def fixed(seeds, positions, stream):
        return np.full(len(seeds), numbers[stream])

    monkeypatch.setattr(VERIFY, "uniform", fixed)
    return verify(logits, rows, drafts, vocab_size)


def test_a_rejected_draft_is_corrected_by_the_residual_and_ends_the_step(monkeypatch):
    """p = (.2, .5, .3) and q = (.6, .3, .1): the residual is (0, .2, .2), so .5 is the first number of token 2."""
    p, q = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([[0.6, 0.3, 0.1]] * 2)
    rows, logits = rows_after(row_of(), [0, 1]), logits_for(p).expand(3, -1)
    for accept, correct, expected in (
        (0.33, 0.0, [0, 1, 0]),  # .2 / .6 accepts token 0; .5 / .3 accepts token 1 for certain
        (0.34, 0.49, [1, NO_TOKEN, NO_TOKEN]),
        (0.34, 0.51, [2, NO_TOKEN, NO_TOKEN]),
    ):
        numbers = {Stream.ACCEPT: accept, Stream.RESIDUAL: correct, Stream.BONUS: 0.1, Stream.SAMPLE: 0.9}
        found = verify_with(monkeypatch, numbers, logits, rows, [Drafts([0, 1], q)])
        assert found.token_ids == expected and not found.errors


def test_ratios_are_compared_in_float64(monkeypatch):
    """A float32 quotient rounds up: a number between the two must reject."""
    p = probabilities(process_logits(logits_for([0.3, 0.7])[None], [row_of()]), [row_of()])
    p_x = p[0, 0].numpy()
    q_x = p_x
    for _ in range(1000):
        q_x = np.nextafter(q_x, np.float32(1))
        exact = float(p_x) / float(q_x)
        if float(p_x / q_x) > exact:
            break
    rounded = float(p_x / q_x)
    q = torch.tensor([[float(q_x), 1 - float(q_x)]])
    between = dict.fromkeys(Stream, exact + (rounded - exact) / 2)
    assert exact < between[Stream.ACCEPT] < rounded
    rows = rows_after(row_of(), [0])
    found = verify_with(monkeypatch, between, logits_for([[0.3, 0.7]] * 2), rows, [Drafts([0], q)])
    assert found.token_ids == [1, NO_TOKEN]


def test_drafts_from_the_model_itself_are_all_accepted(monkeypatch):
    rows, logits = rows_after(row_of(), [1, 0, 2]), TARGET[[3, 1, 0, 2], :V]
    q = probabilities(process_logits(logits, rows), rows)[:3]
    numbers = dict.fromkeys(Stream, 1 - 2.0**-53)
    assert verify_with(monkeypatch, numbers, logits, rows, [Drafts([1, 0, 2], q)]).token_ids == [
        1,
        0,
        2,
        V - 1,
    ]


@pytest.mark.parametrize(("q_of_3", "expected"), [(0.0, 3), (1.0, 1)])
def test_a_residual_of_almost_nothing_is_drawn_from_and_an_empty_one_replaced_by_p(
    monkeypatch, q_of_3, expected
):
    """Token 3 has p = 1e-22, less than the unit in which `draw` counts. It alone has p > q, or no token does."""
    logits, rows = logits_for([[0.5, 0.25, 0.25, 1e-22]] * 2), rows_after(row_of(), [0])
    q = logits[:1].softmax(-1) * 1.000001
    q[0, 3] *= q_of_3
    numbers = {Stream.ACCEPT: 1 - 2.0**-53, Stream.RESIDUAL: 0.6, Stream.BONUS: 0.0, Stream.SAMPLE: 0.0}
    found = verify_with(monkeypatch, numbers, logits, rows, [Drafts([0], q)])
    assert found.token_ids == [expected, NO_TOKEN]


def test_a_request_without_drafts_is_sampled():
    """Also next to others with drafts, and whatever its parameters are."""
    luck = torch.Generator().manual_seed(5)
    logits = torch.randn(40, PADDED, generator=luck) * 3
    kinds = [{"temperature": 0}, *PARAMS.values(), {"logprobs": 2, "temperature": 0.3}]
    rows = [row_of(seed, [1, 1, 4], **kinds[seed % len(kinds)]) for seed in range(40)]
    wanted = sample(logits, rows, V)
    empty = Drafts([], torch.empty(0, PADDED))
    for drafts in ([Drafts([])] * 40, [empty] * 40):
        assert verify(logits, rows, drafts, V) == wanted
    between = rows_after(row_of(99), [2, 3])
    company = torch.cat([logits[:20], torch.randn(3, PADDED, generator=luck), logits[20:]])
    others = [Drafts([])] * 20 + [Drafts([2, 3], DRAFT[[1, 2]])] + [Drafts([])] * 20
    found = verify(company, [*rows[:20], *between, *rows[20:]], others, V)
    assert found.token_ids[:20] + found.token_ids[23:] == wanted.token_ids
    assert found.logprobs[:20] + found.logprobs[23:] == wanted.logprobs


@given(st.lists(st.integers(0, V - 1), max_size=5), st.integers(0, 9), st.booleans())
def test_greedy_rows_give_the_best_tokens_up_to_the_first_other_draft(drafts, seed, certain):
    row, logits = row_of(seed, temperature=0), TARGET[[1, *drafts]]
    best = logits[:, :V].argmax(-1).tolist()
    right = next((i for i, draft in enumerate(drafts) if draft != best[i]), len(drafts))
    q = None if certain else torch.cat([DRAFT[[1, *drafts]][: len(drafts)], torch.empty(0, PADDED)])
    found = verify(logits, rows_after(row, drafts), [Drafts(drafts, q)], V)
    assert found.token_ids == best[: right + 1] + [NO_TOKEN] * (len(drafts) - right)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, V - 1), max_size=4), st.booleans()), min_size=1, max_size=6),
    st.integers(0, 99),
)
def test_every_request_gets_accepted_drafts_and_one_more_token(requests, seed):
    """They are the same as alone, for any drafts of the other requests."""
    rows, logits, drafts = [], [], []
    for r, (ids, certain) in enumerate(requests):
        rows.append(rows_after(row_of(seed + 7 * r, logprobs=1 if r % 2 else None), ids))
        logits.append(TARGET[[1, *ids]])
        probs = None if certain else torch.cat([DRAFT[[1, *ids]][: len(ids)], torch.empty(0, PADDED)])
        drafts.append(Drafts(ids, probs))
    found = verify(torch.cat(logits), list(chain.from_iterable(rows)), drafts, V)
    start = 0
    for r, (ids, _) in enumerate(requests):
        tokens = found.token_ids[start : start + len(ids) + 1]
        reports = found.logprobs[start : start + len(ids) + 1]
        alone = verify(logits[r], rows[r], [drafts[r]], V)
        assert (tokens, reports) == (alone.token_ids, alone.logprobs)
        num_tokens = next((i for i, token in enumerate(tokens) if token == NO_TOKEN), len(tokens))
        assert tokens[num_tokens:] == [NO_TOKEN] * (len(tokens) - num_tokens)
        assert tokens[: num_tokens - 1] == ids[: num_tokens - 1]
        assert num_tokens and all(0 <= token < V for token in tokens[:num_tokens])
        if num_tokens <= len(ids):  # corrected
            assert tokens[num_tokens - 1] != ids[num_tokens - 1]
        for token, report in zip(tokens, reports, strict=True):
            assert (report is not None) == (r % 2 == 1 and token != NO_TOKEN)
            if report:
                assert next(iter(report)) == token
        start += len(ids) + 1


def test_padding_is_never_accepted():
    """It has no probability in the model, and a model of its own may have drafted it."""
    ids = [V, V + 1]
    q = torch.full((2, PADDED), 1 / PADDED)
    for seed in range(50):
        found = verify(TARGET[[1, 2, 3]], rows_after(row_of(seed), ids), [Drafts(ids, q)], V)
        assert 0 <= found.token_ids[0] < V and found.token_ids[1:] == [NO_TOKEN] * 2


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_row_that_cannot_be_sampled_is_named_and_changes_no_other(bad):
    """Row 0 belongs to the first request; rows 1 to 3 to the second one, whose drafts are its most likely tokens."""
    row, ids = row_of(temperature=0, logprobs=0), [TARGET[1, :V].argmax().item()]
    ids.append(TARGET[ids[0], :V].argmax().item())
    logits = TARGET[[2, 1, *ids]]
    rows, drafts = (
        [row_of(temperature=0), *rows_after(row, ids)],
        [Drafts([]), Drafts(ids, DRAFT[[1, ids[0]]])],
    )
    whole = verify(logits, rows, drafts, V)
    assert whole.token_ids[1:3] == ids
    damaged = logits.clone()
    damaged[1 + bad] = math.nan
    found = verify(damaged, rows, drafts, V)
    assert found.token_ids[: 1 + bad] == whole.token_ids[: 1 + bad]
    assert found.logprobs[: 1 + bad] == whole.logprobs[: 1 + bad] and found.logprobs[1 + bad] is None
    assert isinstance(found.errors.pop(1 + bad), NonFiniteLogitsError) and not found.errors
    # After a rejected draft, the error is still reported. The engine does not read that row.
    other = [(ids[0] + 1) % V, ids[1]]
    found = verify(
        damaged, [rows[0], *rows_after(row, other)], [Drafts([]), Drafts(other, DRAFT[[1, other[0]]])], V
    )
    if bad:
        assert found.token_ids[:4] == [whole.token_ids[0], ids[0], NO_TOKEN, NO_TOKEN]


def test_constraints_that_leave_no_token_after_a_draft_are_named_there():
    row = row_of(allowed_token_ids=[2])
    row.bad_words = lambda output: torch.tensor([2] if len(output) else [], dtype=torch.int64)
    row.__post_init__()
    found = verify(TARGET[[1, 2]], rows_after(row, [2]), [Drafts([2], DRAFT[[1]])], V)
    assert found.token_ids[0] == 2 and isinstance(found.errors[1], NoTokenLeftError)


def test_the_reported_logprobs_are_the_models_own():
    """Of accepted drafts, of the correction and of the bonus token: of the raw logits, as `sample` reports them."""
    logprobs = TARGET[:, :V].log_softmax(-1)
    seen = set()
    for seed in range(60):
        row, ids = (
            row_of(seed, logprobs=0, temperature=0.7, top_k=4),
            random.Random(seed).choices(range(V), k=2),
        )
        found = verify(TARGET[[1, *ids]], rows_after(row, ids), [Drafts(ids, DRAFT[[1, ids[0]]])], V)
        for before, token, report in zip([1, *ids], found.token_ids, found.logprobs, strict=True):
            if token == NO_TOKEN:
                assert report is None
            else:
                assert report[token].logprob == pytest.approx(logprobs[before, token].item(), abs=1e-6)
        seen.add(found.token_ids.count(NO_TOKEN))
    assert seen == {0, 1, 2}
