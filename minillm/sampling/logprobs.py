"""Log-probabilities and ranks of tokens, for `logprobs` and `prompt_logprobs` alike.

They describe the raw logits, before penalties, temperature and truncation, as vLLM reports by default: what the model
predicts, not how it is sampled.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from minillm.sampling.truncation import mask_padding, top_k_mask


@dataclass(slots=True)
class Logprob:
    """One token's natural log-probability, its rank from 1, and its text once it is decoded."""

    logprob: float
    rank: int
    decoded_token: str | None = None


def gather_logprobs(
    raw_logits: Tensor, token_ids: Tensor, k: int, vocab_size: int | None = None
) -> list[dict[int, Logprob]]:
    """Return, for each row, the log-probabilities of its own token and then of the `k` most likely ones, by token id.

    `raw_logits` [N, V] have any floating dtype, `token_ids` [N] are integers. `k` = 0 reports the own token alone and
    `k` = -1 the whole vocabulary. Columns from `vocab_size` on are padding: they have probability 0 and are not
    reported. Equal logits are ranked by token id, as sampling breaks ties.
    """
    logits = mask_padding(raw_logits.float(), vocab_size)  # [N, V]
    k = min(vocab_size or logits.shape[-1], logits.shape[-1]) if k == -1 else k
    ids = token_ids[:, None]  # [N, 1]
    ranks = _ranks(logits, ids)
    if k:
        best = _best(logits, k)  # [N, k]
        ids = torch.cat((ids, best), -1)  # [N, 1 + k]
        ranks = torch.cat((ranks, torch.arange(1, k + 1, device=ranks.device).expand_as(best)), -1)
    logprobs = logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)
    return [
        {token_id: Logprob(logprob, rank) for token_id, logprob, rank in zip(*row, strict=True)}
        for row in zip(ids.tolist(), logprobs.tolist(), ranks.tolist(), strict=True)
    ]


def _ranks(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Return the rank, from 1, of `token_ids` [N, 1] among `logits` [N, V]: [N, 1]."""
    value = logits.gather(-1, token_ids)
    lower_id = torch.arange(logits.shape[-1], device=logits.device) < token_ids  # [N, V]
    ahead = (logits > value) | ((logits == value) & lower_id)
    return ahead.sum(-1, keepdim=True) + 1


def _best(logits: Tensor, k: int) -> Tensor:
    """Return the ids [N, k] of the k highest `logits` [N, V] in descending order, the lowest id first of equal ones."""
    mask = top_k_mask(logits, [k] * len(logits))
    ids = mask.nonzero()[:, 1].view(-1, k)  # ascending ids
    order = logits.gather(-1, ids).sort(stable=True, dim=-1, descending=True).indices
    return ids.gather(-1, order)
