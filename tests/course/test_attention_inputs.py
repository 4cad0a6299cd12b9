import torch

from minillm.batch import Batch
from minillm.course.attention_inputs import attention_inputs


class TwoLayers:
    """A model that calls attention with known tensors."""

    device = torch.device("cpu")

    def __call__(self, batch: Batch, cache) -> None:
        for layer in range(2):
            q, k, v = (torch.full((len(batch.token_ids), heads, 8), 1.0 * layer) for heads in (4, 2, 2))
            assert cache.attend(layer, q, k, v, batch).shape == q.shape


def test_each_layer_is_kept() -> None:
    layers = attention_inputs(TwoLayers(), [5, 6, 7])
    assert [[tuple(x.shape) for x in inputs] for inputs in layers] == [[(3, 4, 8), (3, 2, 8), (3, 2, 8)]] * 2
    assert [float(q[0, 0, 0]) for q, _, _ in layers] == [0, 1]
