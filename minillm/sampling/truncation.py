"""Truncation: which tokens are likely enough to be sampled, by min-p, top-k and top-p.

Each function takes a batch and returns a mask, bool [R, V], that is True for the tokens to keep. None of them sorts the
vocabulary. Finding the 256 most likely of 150,000 tokens takes a tenth of the time, and then a threshold is enough.

Sources: top-k: Fan et al., "Hierarchical Neural Story Generation" (2018); top-p: Holtzman et al., "The Curious Case
of Neural Text Degeneration" (2020), section 3.1; min-p: Nguyen et al., "Turning Up the Heat" (2024).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Probability is counted in whole units of 2**-60. Integers have the same sum in every order, so a cumulative sum is
# the same alone and in a batch, on a CPU and in a GPU's parallel scan, and it never decreases. A float32 has 24 bits,
# so every probability above 2**-37 is a whole number of units. Sums below 8 fit in an int64.
_MASS_UNITS = 2.0**60

# How many of the most likely tokens top-p looks at first. The nucleus of a language model is nearly always smaller.
_NUCLEUS_GUESS = 256


def mask_padding(logits: Tensor, vocab_size: int | None) -> Tensor:
    """Return `logits` [..., V] with -inf from column `vocab_size` on, where the vocabulary is padded."""
    if vocab_size is None or vocab_size >= logits.shape[-1]:
        return logits
    logits = logits.clone()
    logits[..., vocab_size:] = -math.inf
    return logits


def count_mass(probs: Tensor) -> Tensor:
    """Return probabilities [..., V] as int64 counts of 2**-60, rounded down."""
    return probs.mul(_MASS_UNITS).long()


def min_p_mask(logits: Tensor, min_p: Sequence[float]) -> Tensor:
    """Keep the tokens that are at least `min_p[r]` (above 0) times as likely as the most likely one.

    Takes `logits` [R, V].
    """
    # p >= min_p * max(p), in logarithms: the denominator of the softmax cancels.
    log_min_p = torch.tensor([math.log(p) for p in min_p], device=logits.device)
    return logits >= logits.amax(-1, keepdim=True) + log_min_p[:, None]


def top_k_mask(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """Keep the `counts[r]` (1 to V) highest of `scores` [R, V]. Ties keep the lowest ids."""
    count = torch.tensor(counts, device=scores.device)[:, None]  # [R, 1]
    lowest = scores.topk(max(counts)).values.gather(-1, count - 1)  # [R, 1]
    return _keep_best(scores, lowest, count)


def top_p_mask(probs: Tensor, top_p: Sequence[float]) -> Tensor:
    """Keep the nucleus: the smallest set of most likely tokens whose `probs` [R, V] sum to `top_p[r]`.

    Ties keep the lowest ids.
    """
    target = count_mass(torch.tensor(top_p, dtype=torch.float64, device=probs.device))  # [R]
    return _keep_best(probs, *_find_nucleus(probs, target, _NUCLEUS_GUESS))


def _find_nucleus(probs: Tensor, target: Tensor, guess: int) -> tuple[Tensor, Tensor]:
    """Return the smallest probability in each row's nucleus of mass `target` [R], and its number of tokens: [R, 1]."""
    vocab_size = probs.shape[-1]
    best = probs.topk(min(guess, vocab_size)).values  # [R, guess], descending
    reached = count_mass(best).cumsum(-1)
    count = (reached < target[:, None]).sum(-1, keepdim=True) + 1  # [R, 1]
    # Rounding may leave the sum of a whole row just under a target close to 1. The nucleus is then the whole row.
    lowest = best.gather(-1, (count - 1).clamp(max=best.shape[-1] - 1))
    short = (count > guess).squeeze(-1)
    if guess < vocab_size and bool(short.any()):
        lowest[short], count[short] = _find_nucleus(probs[short], target[short], guess * 32)
    return lowest, count


def _keep_best(scores: Tensor, lowest: Tensor, count: Tensor) -> Tensor:
    """Keep the `count` [R, 1] best of `scores` [R, V], given the `lowest` [R, 1] of them."""
    keep = scores >= lowest
    if bool((keep.sum(-1, keepdim=True, dtype=torch.int32) > count).any()):
        # More tokens share the lowest score than fit: the lowest ids win.
        above, tied = scores > lowest, scores == lowest
        keep = above | (tied & (tied.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
    return keep
