"""How far a quantised model is from its original, on the same texts: KL divergence, top-1 agreement and perplexity.

Perplexity alone can mislead: an error may move a model towards the text by luck. KL and agreement compare the two
models with each other, token by token.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minillm.model.transformer import Transformer
from minillm.quantization.calibration import WholeTexts, whole_texts

TOKENS_AT_ONCE = 2048


@dataclass(frozen=True)
class Comparison:
    """Hold the means over all predicted tokens.

    `kl` is KL(reference || model) in nats per token, `agreement` the fraction of tokens at which both rank the same
    token first, and `perplexity` that of the model. `document_kl` [documents] float64 has the mean KL of each text.
    """

    kl: float
    agreement: float
    perplexity: float
    document_kl: Tensor


def compare(model: Transformer, reference: Transformer, windows: Sequence[Sequence[int]]) -> Comparison:
    """Compare two models on texts of at least two tokens each, in one pass.

    Each token but the first of a text is predicted from those before it. Raises `ValueError` for a shorter text, for
    none, and for models with different vocabularies.
    """
    if not windows or min(map(len, windows)) < 2:
        raise ValueError(
            f"{len(windows)} texts, the shortest of {min(map(len, windows), default=0)} tokens: give texts of at least "
            "2 tokens, one to predict from another"
        )
    if model.config.vocab_size != reference.config.vocab_size:
        raise ValueError(
            f"the models have {model.config.vocab_size} and {reference.config.vocab_size} tokens: compare two with the "
            "same vocabulary"
        )
    kl, same, nll = (torch.cat(parts) for parts in zip(*_per_token(model, reference, windows), strict=True))
    documents = kl.split([len(window) - 1 for window in windows])
    return Comparison(
        kl.mean().item(),
        same.mean().item(),
        math.exp(nll.mean().item()),
        torch.stack([document.mean() for document in documents]),
    )


def _per_token(
    model: Transformer, reference: Transformer, windows: Sequence[Sequence[int]]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return KL, agreement (0 or 1) and negative log-likelihood [T - texts] float64, for a few texts at a time."""
    found, some = [], []
    for i, window in enumerate(windows):
        some.append(window)
        if sum(map(len, some)) >= TOKENS_AT_ONCE or i == len(windows) - 1:
            p, q = _log_probabilities(reference, some), _log_probabilities(model, some)
            targets = torch.tensor([token for window in some for token in window[1:]])
            kl = (p.exp() * (p - q)).sum(-1).double()
            same = (p.argmax(-1) == q.argmax(-1)).double()
            found.append((kl, same, -q.gather(1, targets[:, None])[:, 0].double()))
            some = []
    return found


def _log_probabilities(model: Transformer, windows: Sequence[Sequence[int]]) -> Tensor:
    """Return log p of every vocabulary entry for each token but the first of each text, [T - texts, vocab] float32."""
    hidden = model(whole_texts(windows), WholeTexts(model.config))
    ends = torch.tensor([len(window) for window in windows]).cumsum(0) - 1
    predicts = torch.ones(len(hidden), dtype=torch.bool)
    predicts[ends] = False
    return model.logits(hidden[predicts]).log_softmax(-1)
