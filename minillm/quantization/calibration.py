"""The calibration text on its way through a model, one layer at a time.

Some methods look at activations: what enters a projection decides which of its weights matter. `Stream` holds the
residual stream of all calibration tokens before one layer. A layer may be run on it several times, in several versions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from minillm.batch import Batch, Chunk
from minillm.config import ModelConfig
from minillm.model.linear import Projection
from minillm.model.transformer import Block, Transformer
from minillm.ops import Ops, self_attention


@dataclass(frozen=True)
class WholeTexts:
    """The memory of a model that gets every text whole: no cache, and attention over this step's tokens alone."""

    config: ModelConfig

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, batch: Batch) -> Tensor:
        """Return the attention of q [T, H, D] over this step's own k and v [T, H_kv, D]."""
        return self_attention(q, k, v, batch, self.config.sliding_window(layer))


def whole_texts(windows: Sequence[Sequence[int]]) -> Batch:
    """Return a batch with all tokens of these texts, for a model with `WholeTexts`. Raises `ValueError` for none."""
    if not windows or not all(windows):
        raise ValueError(
            f"{len(windows)} texts, or an empty one among them: give texts of at least one token"
        )
    return Batch.of([Chunk(window, 0, [0]) for window in windows], block_size=max(map(len, windows)))


@dataclass(frozen=True)
class Stream:
    """The residual stream [T, hidden] of the calibration tokens before layer `layer`.

    `windows` are the texts, in tokens. `model` needs no blocks: each method brings those of the layer it works on.
    """

    model: Transformer
    windows: Sequence[Sequence[int]]
    residual: Tensor
    layer: int = 0

    @classmethod
    def of(cls, model: Transformer, windows: Sequence[Sequence[int]]) -> "Stream":
        """Return the embeddings of these texts, before layer 0.

        Raises `ValueError` for no text, for an empty one, and for a token that the model does not have.
        """
        highest = max((token for window in windows for token in window), default=0)
        if highest >= model.config.vocab_size:
            raise ValueError(f"token {highest}: this model has tokens 0 to {model.config.vocab_size - 1}")
        return cls(model, windows, model.embed(whole_texts(windows)))

    def normed(self, block: Block) -> Tensor:
        """Return the input [T, hidden] of the block's attention."""
        return self.model.norm(self.residual, block.attention_norm)

    def attention(self, block: Block, x: Tensor) -> Tensor:
        """Return the block's attention [T, hidden] for its input x [T, hidden]."""
        batch = whole_texts(self.windows)
        memory = WholeTexts(self.model.config)
        return self.model.attention(self.layer, block, x, self.model.angles(batch), batch, memory)

    def after(self, block: Block) -> "Stream":
        """Return the stream before the next layer, with `block` as this one."""
        model = self.model
        attended = self.attention(block, self.normed(block))
        x, residual = model.add_norm(attended, self.residual, block.mlp_norm)
        return replace(self, residual=residual + block.mlp(x, model.ops), layer=self.layer + 1)

    def part(self, num_tokens: int) -> "Stream":
        """Return the stream of every n-th window, with n such that about `num_tokens` tokens remain."""
        n = max(1, len(self.residual) // num_tokens)
        rows = self.residual.split([len(window) for window in self.windows])[::n]
        return replace(self, windows=self.windows[::n], residual=torch.cat(rows))


@dataclass
class _Recorder:
    """A projection that keeps its inputs in `seen`, under its role."""

    role: str
    projection: Projection
    seen: dict[str, Tensor]

    def __call__(self, x: Tensor, ops: Ops) -> Tensor:
        self.seen[self.role] = x
        return self.projection(x, ops)


def record(stream: Stream, block: Block) -> tuple[dict[str, Tensor], Stream]:
    """Run a block on the stream: return the inputs [T, in] of each projection by role, and the stream after it.

    Roles are "qkv", "o", "gate_up" and "down".
    """
    seen: dict[str, Tensor] = {}
    after = stream.after(block.with_projections(lambda role, projection: _Recorder(role, projection, seen)))
    return seen, after


def gram(x: Tensor) -> Tensor:
    """Return X^T X [in, in] float32 of inputs x [n, in]. It is symmetric, and NumPy computes one half of it only."""
    rows = x.float().numpy(force=True)
    with np.errstate(all="ignore"):  # numbers that are not finite stay in the result, and callers name them
        return torch.from_numpy(rows.T @ rows).to(x.device)
