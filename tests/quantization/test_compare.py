import math
from dataclasses import replace

import pytest
import torch

from minillm.model.transformer import Transformer
from minillm.quantization import compare as module
from minillm.quantization.compare import compare
from minillm.quantization.methods import simulate
from tests.model.zoo import sample, tokens

TEXTS = [tokens(n, n) for n in (2, 30, 7, 40)]


def test_a_model_equals_itself():
    model = sample("llama").model
    found = compare(model, model, TEXTS)
    assert found.kl == 0 and found.agreement == 1 and found.document_kl.tolist() == [0] * 4


@pytest.mark.parametrize("at_once", [1, 35, 10_000])
def test_the_figures_are_those_of_the_definitions(at_once, monkeypatch):
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", at_once)
    reference = sample("tied")
    model = simulate(reference.model, "rtn", 3)
    found = compare(model, reference.model, TEXTS)
    kl, same, nll, documents = [], [], [], []
    for text in TEXTS:
        p = reference.expected(text).log_softmax(-1)[:-1].double()
        with torch.inference_mode():
            hidden = model(module.whole_texts([text]), module.WholeTexts(model.config))
        q = model.logits(hidden).log_softmax(-1)[:-1].double()
        each = (p.exp() * (p - q)).sum(-1)
        kl.append(each), same.append((p.argmax(-1) == q.argmax(-1)).double()), documents.append(each.mean())
        nll.append(-q[range(len(text) - 1), text[1:]])
    assert found.kl == pytest.approx(torch.cat(kl).mean().item(), rel=1e-3)
    assert found.agreement == pytest.approx(torch.cat(same).mean().item())
    assert 0 < found.agreement < 1
    assert found.perplexity == pytest.approx(math.exp(torch.cat(nll).mean()), rel=1e-4)
    assert torch.allclose(found.document_kl, torch.stack(documents), rtol=1e-3)


def test_texts_and_models_that_cannot_be_compared_are_named():
    model = sample("llama").model
    for texts, words in (
        ([], "0 texts"),
        ([[1, 2], [3]], "2 texts, the shortest of 1 tokens"),
        ([[]], "of 0 tokens"),
    ):
        with pytest.raises(ValueError, match=words):
            compare(model, model, texts)
    other = Transformer(replace(model.config, vocab_size=299), model.weights)
    with pytest.raises(ValueError, match="299 and 300 tokens"):
        compare(other, model, TEXTS)
