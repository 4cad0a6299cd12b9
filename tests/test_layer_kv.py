"""One layer's part of the cache: its tensors, and what is refused."""

import pytest
import torch

from minillm.layer_kv import LARGEST, LayerKV

PLAIN = LayerKV.empty((3, 8, 2, 16), torch.float32, "cpu")


def test_a_quantised_layer_has_two_scales_and_another_none():
    assert PLAIN.k_scale is None and PLAIN.v_scale is None and len(PLAIN.tensors) == 2
    for dtype in LARGEST:
        kv = LayerKV.empty((1, 2, 3, 4), dtype, "cpu")
        assert kv.k.dtype == kv.v.dtype == dtype and kv.k.shape == kv.v.shape == (1, 2, 3, 4)
        assert kv.k_scale.dtype == kv.v_scale.dtype == torch.float32
        assert kv.k_scale.shape == kv.v_scale.shape == (1, 2, 3) and len(kv.tensors) == 4
        kv.check()


@pytest.mark.parametrize("dtype", LARGEST)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"v": torch.zeros(3, 8, 1, 16)}, "must be alike"),
        ({"v": torch.zeros(3, 8, 2, 16).half()}, "must be alike"),
        ({"v_scale": None}, "kv.v_scale: a quantised cache needs scales"),
        ({"v_scale": torch.zeros(3, 8, 1)}, r"kv.v_scale \(3, 8, 1\) .* must be float32 \(3, 8, 2\)"),
        ({"k_scale": torch.zeros(3, 8, 2).half()}, "kv.k_scale .*float16 must be float32"),
        ({"k_scale": torch.zeros(3, 2, 8).transpose(1, 2)}, "must be contiguous"),
        (
            {"k": torch.zeros(3, 8, 2, 16), "v": torch.zeros(3, 8, 2, 16)},
            r"and no other \(torch.float32 here\)",
        ),
    ],
)
def test_what_a_kernel_would_read_wrongly_is_refused(dtype, change, words):
    with pytest.raises(ValueError, match=words):
        LayerKV.empty((3, 8, 2, 16), dtype, "cpu")._replace(**change).check()
