"""What the model itself thought of a token: its log-probability and rank among the raw logits.

Raw means before penalties, temperature and truncation, as vLLM reports by default: a number that says something of
the model, not of the sampling.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from minillm.sampling.truncation import top_k_mask


@dataclass(slots=True)
class Logprob:
    """One token's log-probability (natural), its rank from 1, and its text once somebody has decoded it."""

    logprob: float
    rank: int
    decoded_token: str | None = None


def gather_logprobs(raw_logits: Tensor, token_ids: Tensor, k: int) -> list[dict[int, Logprob]]:
    """For each row, the token that is there and the `k` likeliest, by token id: the first one first, then by rank.

    `raw_logits` [N, V] are of any floating dtype, `token_ids` [N] integers; `k` = 0 reports the token alone. Ranks
    among equals go by token id, as sampling breaks ties.
    """
    logits = raw_logits.float()  # [N, V]
    there = token_ids[:, None]  # [N, 1]
    ids, ranks = there, _ranks(logits, there)
    if k:
        best = _best(logits, k)  # [N, k]
        ids = torch.cat((there, best), -1)  # [N, 1 + k]
        ranks = torch.cat((ranks, torch.arange(1, k + 1, device=ranks.device).expand_as(best)), -1)
    logprobs = logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)
    return [
        {token_id: Logprob(logprob, rank) for token_id, logprob, rank in zip(*row, strict=True)}
        for row in zip(ids.tolist(), logprobs.tolist(), ranks.tolist(), strict=True)
    ]


def _ranks(logits: Tensor, token_ids: Tensor) -> Tensor:
    """The rank of `token_ids` [N, 1] among `logits` [N, V], from 1: [N, 1]."""
    value = logits.gather(-1, token_ids)
    lower_id = torch.arange(logits.shape[-1], device=logits.device) < token_ids  # [N, V]
    ahead = (logits > value) | ((logits == value) & lower_id)
    return ahead.sum(-1, keepdim=True) + 1


def _best(logits: Tensor, k: int) -> Tensor:
    """The ids [N, k] of the k highest `logits` [N, V], falling; of ties the lowest id first."""
    mask = top_k_mask(logits, [k] * len(logits))
    ids = mask.nonzero()[:, 1].view(-1, k)  # rising ids
    order = logits.gather(-1, ids).sort(stable=True, dim=-1, descending=True).indices
    return ids.gather(-1, order)
