"""The embedding: the row of a table for each token id, and in GPT-2 also for each position."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(slots=True)
class Embedding:
    """Rows of `weight` [entries, hidden] by id. A tied language-model head uses the same memory."""

    weight: Tensor

    def __call__(self, ids: Tensor) -> Tensor:
        """Return the rows of `ids` [T], as [T, hidden]."""
        return F.embedding(ids, self.weight)
