"""How one projection is stored: parts, their suffixes and dtypes, and schemes of other kinds."""

from dataclasses import dataclass

import pytest
import torch

from minillm.errors import CheckpointError
from minillm.model import schemes
from minillm.model.checkpoint import load_model
from minillm.model.schemes import Dense, Parts
from tests.model.test_checkpoint import copy_of, edit_tensors, load
from tests.model.test_transformer import logits
from tests.model.zoo import sample

CPU = torch.device("cpu")


@dataclass
class Memory:
    """A `Source` over tensors in memory."""

    tensors: dict
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    def stored(self, name, shape, dtypes):
        assert self.tensors[name].shape == shape and self.tensors[name].dtype in dtypes
        return self.tensors[name]

    def suffixes(self, name):
        return {n.rpartition(".")[2] for n in self.tensors if n.rpartition(".")[0] == name}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", Dense.dtypes)
def test_dense_parts_are_joined_along_out(transposed, bias, dtype, monkeypatch):
    monkeypatch.setattr(schemes, "STRIP", 2)
    parts = {
        name: (torch.randn(size, 4).to(dtype), torch.randn(size).to(dtype))
        for name, size in (("a", 3), ("b", 5))
    }
    tensors = {f"{n}.weight": w.t() if transposed else w for n, (w, _) in parts.items()}
    tensors |= {f"{n}.bias": b for n, (_, b) in parts.items()}
    linear = Dense().load(Memory(tensors), Parts(("a", "b"), 4, (3, 5), bias, transposed))
    weights, biases = (torch.cat(both).float() for both in zip(*parts.values(), strict=True))
    assert torch.equal(linear.weight, weights.t()) and linear.weight.is_contiguous()
    assert torch.equal(linear.bias, biases) if bias else linear.bias is None


@pytest.mark.parametrize(
    "suffixes", [("qweight", "qzeros", "scales"), ("weight_packed", "weight_scale", "weight_shape")]
)
def test_a_projection_of_another_scheme_is_named(suffixes, tmp_path):
    folder, name = copy_of("biases", tmp_path), "model.layers.1.mlp.down_proj"

    def packed(tensors):
        del tensors[f"{name}.weight"]
        tensors.update({f"{name}.{suffix}": torch.zeros(2, dtype=torch.int32) for suffix in suffixes})

    edit_tensors(folder, packed)
    with pytest.raises(
        CheckpointError, match=rf"stores '{name}' as {', '.join(suffixes)}, not as one float matrix"
    ):
        load(folder)


def test_a_bias_without_its_matrix_is_a_missing_tensor(tmp_path):
    folder, name = copy_of("biases", tmp_path), "model.layers.1.mlp.down_proj"
    edit_tensors(folder, lambda t: t.pop(f"{name}.weight"))
    with pytest.raises(CheckpointError, match=rf"no tensor '{name}\.weight'"):
        load(folder)


class Doubled:
    """A scheme of its own tensor next to the matrix: y = factor x W, one factor per part."""

    def load(self, source, parts):
        factors = [source.stored(f"{n}.factor", (1,), (torch.int32,)) for n in parts.names]
        each = [
            Dense().load(source, Parts((n,), parts.size_in, (s,)))
            for n, s in zip(parts.names, parts.sizes_out, strict=True)
        ]
        return lambda x, ops: torch.cat([p(x, ops) * f for p, f in zip(each, factors, strict=True)], 1)


def test_a_scheme_reads_its_own_tensors_and_returns_one_projection(tmp_path):
    """Two parts with factors of their own stay two products, under one projection. The tied head stays dense."""
    folder = copy_of("tied", tmp_path)
    modules = [
        f"model.layers.{i}.{m}_proj"
        for i in range(3)
        for m in (
            "self_attn.q",
            "self_attn.k",
            "self_attn.v",
            "self_attn.o",
            "mlp.gate",
            "mlp.up",
            "mlp.down",
        )
    ]

    def halved(tensors):
        for k, module in enumerate(modules):
            factor = torch.tensor([1 + k % 3], dtype=torch.int32)
            tensors[f"{module}.factor"] = factor
            tensors[f"{module}.weight"] = tensors[f"{module}.weight"] / factor

    edit_tensors(folder, halved)
    plain = sample("tied")
    model = load_model(folder, plain.config, scheme=Doubled())
    torch.testing.assert_close(logits(model, "tied"), logits(plain.model, "tied"))
    assert model.weights.lm_head.weight.data_ptr() == model.weights.embed.weight.data_ptr()
    with pytest.raises(CheckpointError, match=r"21 tensors that its config\.json does not account for"):
        load(folder)
