"""Blocks of GGUF files stay packed, with the numbers that the `gguf` library unpacks."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from minillm import LLM
from minillm.model.linear import Linear
from minillm.model.schemes import Parts
from minillm.model.stored import open_model
from minillm.ops import Ops
from minillm.quantization.formats.gguf import GgufBlocks
from minillm.quantization.linear import Joined, QuantizedLinear
from tests.model.gguf_files import write_gguf
from tests.model.test_gguf import theirs
from tests.model.test_schemes import Memory
from tests.model.zoo import sample
from tests.quantization.stored_models import CPU, PROMPT, loaded, logits

TOLERANCE = 1e-4
BYTES_OF_BLOCK = {"Q4_0": 18, "Q4_1": 22, "Q8_0": 34}  # Q4_1 is 20 in the file: its zero needs float32


@pytest.mark.parametrize("name", ["llama", "qwen2"])  # with the rows of q and k in another order, and not
@pytest.mark.parametrize("kind", BYTES_OF_BLOCK)
def test_the_logits_are_those_of_transformers_and_the_bytes_those_of_blocks(
    kind: str, name: str, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "model.gguf", sample(name).reference, Type[kind])
    model, in_floats = loaded(path), open_model(path).weights(CPU, torch.float32)
    with torch.no_grad():
        expected = theirs(path)(torch.tensor([PROMPT])).logits[0]
    assert (logits(model, name=name) - expected).abs().max() < TOLERANCE
    assert torch.equal(logits(model, name=name).argmax(-1), logits(in_floats, name=name).argmax(-1))
    blocks = 0
    for block in model.weights.blocks:
        for projection in (block.qkv, block.o, block.mlp.gate_up, block.mlp.down):  # type: ignore[attr-defined]
            assert isinstance(projection, QuantizedLinear)
            assert (
                projection.weight.nbytes * 32 == projection.weight.dequantise().numel() * BYTES_OF_BLOCK[kind]
            )
            blocks += projection.weight.dequantise().numel() // 32
    if name == "llama":
        blocks += model.weights.lm_head.weight.dequantise().numel() // 32  # type: ignore[attr-defined]
    assert in_floats.nbytes - model.nbytes == blocks * (128 - BYTES_OF_BLOCK[kind])


@pytest.mark.parametrize("kind", BYTES_OF_BLOCK)
def test_any_bytes_are_the_numbers_of_the_library(kind: str) -> None:
    random = np.random.default_rng(0)
    block_bytes = gguf.GGML_QUANT_SIZES[Type[kind]][1]
    rows = random.integers(0, 256, (7, 3 * block_bytes), dtype=np.uint8)
    for number in range(2 if kind == "Q4_1" else 1):  # scales of a sensible size, one block with none
        values = random.normal(size=(7, 3)).astype(np.float16)
        values[0, 0] = values[3, 1] = values[5, 2] = 0 if number == 0 else 0.25
        rows.reshape(7, 3, -1)[..., 2 * number : 2 * number + 2] = values[..., None].view(np.uint8)
    source = Memory({f"a.{kind.lower()}": torch.from_numpy(rows)})
    projection = GgufBlocks().load(source, Parts(("a",), 96, (7,)))
    assert isinstance(projection, QuantizedLinear)
    expected = torch.from_numpy(gguf.dequantize(rows, Type[kind]))
    assert torch.allclose(projection.weight.dequantise(), expected, rtol=1e-6, atol=1e-6)


def test_parts_of_other_types_stay_products_of_their_own() -> None:
    w = np.random.default_rng(0).normal(size=(3, 8, 64)).astype(np.float32)
    stored = {
        f"{name}.{kind.lower()}": torch.from_numpy(gguf.quantize(w[i], Type[kind]))
        for i, (name, kind) in enumerate((("q", "Q4_0"), ("k", "Q8_0")))
    }
    stored |= {"v.weight": torch.from_numpy(w[2]), "v.q6_k": torch.zeros(1)}
    projection = GgufBlocks().load(Memory(stored), Parts(("q", "k", "v"), 64, (8, 8, 8)))
    assert isinstance(projection, Joined)
    assert [type(part) for part in projection.parts] == [QuantizedLinear, QuantizedLinear, Linear]
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    expected = x @ torch.from_numpy(w).flatten(0, 1).t()
    error = (projection(x, Ops()) - expected).abs().view(2, 3, 8).amax((0, 2))
    assert error[0] > error[1] > error[2] and error[2] < 1e-5 and error[0] < 3


def test_other_numbers_may_be_asked_for(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", sample("llama").reference, Type.Q8_0)
    assert isinstance(loaded(path).weights.lm_head, QuantizedLinear)
    model = loaded(path, "w8a8")
    assert isinstance(model.weights.lm_head, Linear) and model.weights.blocks[0].o.kind == "w8a8"  # type: ignore[attr-defined]
    with LLM(path, max_model_len=32) as llm:
        assert llm.model.nbytes < 0.4 * open_model(path).weights(CPU, torch.float32).nbytes
        assert llm.generate([PROMPT], use_tqdm=False)[0].outputs[0].token_ids
