"""Tools of the chapters about quantisation: texts, the inputs of every matrix, models with other weights, and a judge.

The bundled texts are `calibration` (stories, then tales), `stories` and `tales`. The bundled model was trained on none.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import NoCache
from minillm.model.linear import Linear, Projection
from minillm.model.transformer import Transformer
from minillm.ops import Ops

WINDOW = 256  # tokens
HEAD = "lm_head"  # stays in floating point, as in every scheme of this package
Windows = list[list[int]]


def windows(tokenizer: Any, text: str, number: int, *, last: bool = False) -> Windows:
    """Return the first `number` windows of 256 tokens of a bundled text, or its last ones."""
    path = Path(__file__).parents[1] / "models" / "heldout" / f"{text}.txt"
    words = path.read_text(encoding="utf-8")
    size = min(len(words), 8 * WINDOW * number)  # a token has fewer than 8 characters on average
    ids = tokenizer.encode(words[-size:] if last else words[:size])[: WINDOW * number]
    return [ids[at : at + WINDOW] for at in range(0, len(ids) - WINDOW + 1, WINDOW)]


def hidden_states(model: Transformer, texts: Windows) -> Tensor:
    """Return the final hidden states [T, hidden] of all windows, computed in one step without a cache."""
    chunks = [Chunk(list(ids), 0, [row]) for row, ids in enumerate(texts)]
    return model(Batch.of(chunks, WINDOW, model.device), NoCache(model.config, WINDOW))


def recorded_inputs(model: Transformer, texts: Windows) -> dict[str, Tensor]:
    """Return the inputs [T, in] of each projection but the head by its name, in the order of computation."""
    inputs: dict[str, Tensor] = {}
    hidden_states(model.with_projections(lambda name, inner: _Recorder(name, inner, inputs)), texts)
    return inputs


@dataclass
class _Recorder:
    name: str
    inner: Projection
    inputs: dict[str, Tensor]

    def __call__(self, x: Tensor, ops: Ops) -> Tensor:
        self.inputs[self.name] = x.clone()
        return self.inner(x, ops)


def weights_of(model: Transformer) -> dict[str, Tensor]:
    """Return the weight [out, in] float32 of each projection but the head, by its name."""
    weights: dict[str, Tensor] = {}

    def keep(name: str, inner: Projection) -> Projection:
        assert isinstance(inner, Linear)
        weights[name] = inner.weight.t().float().contiguous()
        return inner

    model.with_projections(keep)
    weights.pop(HEAD, None)
    return weights


def with_weights(model: Transformer, change: Callable[[str, Tensor], Tensor]) -> Transformer:
    """Return the model with `change(name, weight [out, in])` in place of each weight but the head's."""

    def changed(name: str, inner: Projection) -> Projection:
        assert isinstance(inner, Linear)
        if name == HEAD:
            return inner
        weight = change(name, inner.weight.t().float().contiguous())
        return Linear(weight.to(inner.weight.dtype).t(), inner.bias)

    return model.with_projections(changed)


@dataclass(frozen=True)
class Scores:
    """Say how far a model is from its reference over a text, averaged over the tokens.

    `kl` is the Kullback-Leibler divergence from the reference in nats per token, and `agreement` the share of tokens
    after which both have the same most likely token. `perplexity` is the model's own.
    """

    kl: float
    agreement: float
    perplexity: float


class Judge:
    """Compare models with a reference model on the same windows of text."""

    def __init__(self, reference: Transformer, texts: Windows) -> None:
        self.texts = texts
        self._wanted = self._log_probs(reference)

    def __call__(self, model: Transformer, only: Sequence[int] | None = None) -> Scores:
        """Return the scores over all windows, or over the windows with the numbers `only`."""
        found = self._log_probs(model)
        kl = nll = same = 0.0
        chosen = range(len(self.texts)) if only is None else only
        for number in chosen:
            wanted, given = self._wanted[number], found[number]
            kl += float((wanted.exp() * (wanted - given)).sum(-1).mean())
            same += float((wanted.argmax(-1) == given.argmax(-1)).float().mean())
            ids = torch.tensor(self.texts[number][1:], device=given.device)
            nll -= float(given[:-1].gather(1, ids[:, None]).mean())
        count = len(chosen)
        return Scores(kl / count, same / count, math.exp(nll / count))

    def _log_probs(self, model: Transformer) -> list[Tensor]:
        """Return log p [tokens, vocabulary] of each window."""
        rows = hidden_states(model, self.texts).split([len(ids) for ids in self.texts])
        return [model.logits(hidden).log_softmax(-1) for hidden in rows]
