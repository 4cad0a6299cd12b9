"""Exported folders: `transformers` computes the same from them, and we read the same numbers back."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils.quantization_config import CompressedTensorsConfig

from minillm import LLM, SamplingParams
from minillm.cli import main
from minillm.model.checkpoint import INDEX
from minillm.model.linear import Linear, Projection
from minillm.model.transformer import Transformer, tensors_of
from minillm.ops import Ops
from minillm.quantization.absmax import PER_CHANNEL, Grid
from minillm.quantization.export import FolderWriter, Layout, export, layouts, pack_words
from minillm.quantization.formats.parts import unpack_words
from minillm.quantization.fp8 import to_fp8
from minillm.quantization.linear import QuantizedLinear
from tests.engine import tiny
from tests.model.gguf_files import write_gguf
from tests.model.zoo import sample
from tests.quantization.folder_writer import CONFIG, SHARDS, write
from tests.quantization.stored_models import CASES, PROMPT, loaded, logits, two_folders, words

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4


def quantised(name: str, layout: Layout) -> Transformer:
    """A model of the zoo with every projection in this layout, except the head."""
    size = layout.group_size or PER_CHANNEL

    def change(name: str, projection: Projection) -> Projection:
        assert isinstance(projection, Linear)
        if name == "lm_head":
            return projection
        weight = projection.weight.t()
        if layout.kind in ("fp8", "w8a8_fp8"):
            return QuantizedLinear(to_fp8(weight), projection.bias, layout.kind)
        grid = Grid.of(weight, 4 if layout.kind == "int4" else 8, size, layout.symmetric)
        return QuantizedLinear(grid.pack(grid.round(weight)), projection.bias, layout.kind)

    return sample(name).model.with_projections(change).with_ops(Ops())


LAYOUTS = {
    "W4A16-g32": Layout("int4", 32),
    "W4A16-rows": Layout("int4"),
    "W4A16-asymmetric": Layout("int4", 32, symmetric=False),
    "W8A16": Layout("int8"),
    "W8A16-g16": Layout("int8", 16),
    "W8A16-asymmetric": Layout("int8", None, symmetric=False),
    "W8A8": Layout("w8a8"),
    "FP8": Layout("w8a8_fp8"),
    "FP8-weights": Layout("fp8"),
}


def theirs(folder: Path, dequantize: bool) -> transformers.PreTrainedModel:
    """The folder as `transformers` loads it, or with its weights dequantised first."""
    options = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if dequantize else {}
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()


@pytest.mark.filterwarnings("ignore:You passed .quantization_config. or equivalent:UserWarning")
@pytest.mark.parametrize("name", ["biases", "qwen3"])
@pytest.mark.parametrize("case", LAYOUTS)
def test_transformers_computes_the_same_from_our_folder(case: str, name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[case]
    model = quantised(name, layout)
    export(model, sample(name).folder, tmp_path / "out")
    # Without dequantize=True, compressed-tensors 0.20 does not load asymmetric weights.
    reference = theirs(tmp_path / "out", dequantize=not layout.symmetric)
    ours = loaded(tmp_path / "out")
    assert {found for found in layouts(ours).values() if found} == {layout}
    with torch.no_grad():
        expected = reference(torch.tensor([PROMPT])).logits[0]
        for found, projection, x in every_product(reference, ours):
            assert (projection(x, Ops()) - found).abs().max() < TOLERANCE
    found = logits(ours, name=name)
    if "8A8" not in case and case != "FP8":  # where the last bit of x may move it to the next number
        assert (found - expected).abs().max() < TOLERANCE
    assert (found - expected).std() < 0.05 * expected.std()
    assert torch.equal(found, logits(model, name=name))
    assert (found - logits(sample(name).model, name=name)).abs().max() > TOLERANCE


def every_product(
    reference: transformers.PreTrainedModel, ours: Transformer
) -> Iterator[tuple[Tensor, Projection, Tensor]]:
    """The inputs and outputs of the reference's layers, with our projection for each."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in reference.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda _, x, y, name=name: seen.update({name: (x[0], y)}))
    reference(torch.tensor([PROMPT]))
    for i, block in enumerate(ours.weights.blocks):
        for names, projection in (
            (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), block.qkv),
            (("self_attn.o_proj",), block.o),
            (("mlp.gate_proj", "mlp.up_proj"), block.mlp.gate_up),  # type: ignore[attr-defined]
            (("mlp.down_proj",), block.mlp.down),  # type: ignore[attr-defined]
        ):
            parts = [seen[f"model.layers.{i}.{name}"] for name in names]
            yield torch.cat([y[0] for _, y in parts], dim=-1), projection, parts[0][0][0]


@pytest.mark.parametrize("case", LAYOUTS)
def test_our_reader_finds_the_numbers_that_we_wrote(case: str, tmp_path: Path) -> None:
    model = quantised("biases", LAYOUTS[case])
    export(model, sample("biases").folder, tmp_path / "out")
    again = loaded(tmp_path / "out")
    for ours, read in zip(model.weights.blocks, again.weights.blocks, strict=True):
        pairs = list(zip(tensors_of(ours), tensors_of(read), strict=True))
        assert len(pairs) == 4 * (3 + (not LAYOUTS[case].symmetric)) + 2
        for one, other in pairs:
            assert one.dtype == other.dtype and torch.equal(one.float(), other.float())


def test_a_model_of_several_layouts_names_its_targets(tmp_path: Path) -> None:
    """4-bit groups of 64 where they divide a row, and one scale for a row of 72."""
    folder, out = sample("smollm").folder, tmp_path / "out"
    export(loaded(folder, "int4"), folder, out)
    groups = json.loads((out / "config.json").read_text())["quantization_config"]["config_groups"]
    assert {(g["weights"]["group_size"], len(g["targets"])) for g in groups.values()} == {(None, 18), (64, 3)}
    found, expected = logits(loaded(out), name="smollm"), theirs(out, dequantize=False)
    with torch.no_grad():
        assert (found - expected(torch.tensor([PROMPT])).logits[0]).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["tied", "qwen2", "mistral-window", "gqa-1"])
def test_every_family(name: str, tmp_path: Path) -> None:
    model = quantised(name, Layout("int8"))
    export(model, sample(name).folder, tmp_path / "out")
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert ("lm_head.weight" in index["weight_map"]) == (not model.config.tie_word_embeddings)
    found = logits(loaded(tmp_path / "out"), name=name)
    with torch.no_grad():
        expected = theirs(tmp_path / "out", dequantize=False)(torch.tensor([PROMPT])).logits[0]
    assert (found - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("case", ["awq", "gptq", "gptq-8-bits", "W4A16-asymmetric", "int-quantized"])
def test_what_another_program_wrote_can_be_written_again(case: str, tmp_path: Path) -> None:
    packed, _ = two_folders("llama", tmp_path, *CASES[case])
    export(model := loaded(packed), packed, tmp_path / "out")
    assert torch.equal(logits(model), logits(loaded(tmp_path / "out")))


@pytest.mark.parametrize("case", ["gptq-act-order", "gptq-own-orders"])
def test_columns_in_another_order_have_no_place(case: str, tmp_path: Path) -> None:
    packed, _ = two_folders("llama", tmp_path, *CASES[case])
    with pytest.raises(ValueError, match=r"q_proj has its columns in another order \(act-order\)"):
        export(loaded(packed), packed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"family 'gpt2' cannot be exported.*Conv1D"):
        export(loaded(sample("gpt2").folder, "int8"), sample("gpt2").folder, tmp_path / "out")
    with pytest.raises(ValueError, match="the model has no quantised projection: quantise it first"):
        export(sample("llama").model, sample("llama").folder, tmp_path / "out")
    model = quantised("llama", Layout("int8"))
    strange = model.with_projections(lambda name, p: (lambda x, ops: p(x, ops)) if "o_proj" in name else p)
    with pytest.raises(ValueError, match=r"0\.self_attn\.o_proj: a function has no stored form"):
        export(strange, sample("llama").folder, tmp_path / "other")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(ValueError, match="out is there already: delete it, or choose another folder"):
        export(model, sample("llama").folder, tmp_path / "out")


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_gguf_file_becomes_a_folder(kind: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", sample("llama").reference, Type[kind])
    export(model := loaded(path), path, tmp_path / "out")
    found = logits(loaded(tmp_path / "out"))
    with torch.no_grad():
        expected = theirs(tmp_path / "out", dequantize=False)(torch.tensor([PROMPT])).logits[0]
    assert (found - expected).abs().max() < TOLERANCE
    assert (found - logits(model)).std() < 0.02 * expected.std()  # embedding and head became bfloat16


def test_zeros_of_q4_1_are_no_integers(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", sample("llama").reference, Type.Q4_1)
    with pytest.raises(ValueError, match=r"q_proj has zeros that are not integers from 0 to 15"):
        export(loaded(path), path, tmp_path / "out")


def test_the_folder_has_the_tokenizer_and_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    greedy = SamplingParams(temperature=0, max_tokens=8)
    with LLM(tiny.folder(), quantization="w8a8") as llm:
        expected = llm.generate("the quick brown", greedy, use_tqdm=False)[0].outputs[0]
        export(llm.model, tiny.folder(), tmp_path / "out")
    assert main(["generate", "the quick", "--model", str(tmp_path / "out"), "--max-tokens", "2"]) == 0
    with LLM(tmp_path / "out") as llm:
        assert llm.generate("the quick brown", greedy, use_tqdm=False)[0].outputs[0].text == expected.text
        assert llm.model.config.eos_token_ids == tiny.EOS
    kept = {p.name for p in tiny.folder().iterdir()} - {"model.safetensors"}
    assert kept <= {p.name for p in (tmp_path / "out").iterdir()}


def test_bytes_are_a_half_and_a_quarter_of_bfloat16(tmp_path: Path) -> None:
    """Of the projections, in memory and in the file; a group of 32 adds an eighth of 4 bits in float32 scales."""
    llama = sample("llama")
    outer = sum(p.numel() for n, p in llama.reference.named_parameters() if "layers" not in n)
    whole = sum(p.numel() for n, p in llama.reference.named_parameters() if "proj" in n) * 2
    for layout, share in ((Layout("int8"), 0.5), (Layout("int4", 32), 0.25)):
        model = quantised("llama", layout)
        scales = sum(block.qkv.weight.scale.nbytes for block in model.weights.blocks)  # type: ignore[attr-defined]
        assert scales
        out = tmp_path / layout.kind
        export(model, llama.folder, out)
        norms = 4 * 6 * 64
        all_scales = model.nbytes - outer * 4 - norms - share * whole
        assert 0 < all_scales < 0.6 * share * whole
        tensors = sum(
            t.numel() * t.element_size() for p in out.glob("*.safetensors") for t in load_file(p).values()
        )
        assert model.nbytes <= tensors < model.nbytes + 1000
        assert tensors <= sum(p.stat().st_size for p in out.glob("*.safetensors")) < tensors + 12_000


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 41), st.sampled_from([4, 8]), st.integers(0, 2**31))
def test_words_hold_every_number(rows: int, columns: int, bits: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, 2**bits, (rows, columns), generator=random, dtype=torch.uint8)
    packed = pack_words(numbers, bits)
    assert torch.equal(packed, words(numbers.numpy(), bits))
    assert torch.equal(packed, pack_to_int32((numbers.int() - 2 ** (bits - 1)).to(torch.int8), bits))
    assert torch.equal(unpack_words(packed, bits)[:, :columns], numbers)


# ---- the writer ----


@pytest.mark.slow
def test_a_killed_writer_leaves_no_folder_and_goes_on_where_it_was(tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    code = f"from tests.quantization.folder_writer import *; write(Path({str(out)!r}), stop_after=2)"
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL and not out.exists()
    writer = FolderWriter(out, CONFIG, {"bits": 4}, {"method": "rtn"})
    assert writer.done == {"layer-00000", "layer-00001"}
    assert torch.equal(writer.read("layer-00001")["x.1"], torch.ones(3))
    (writer.folder / "layer-00009.tmp").write_bytes(b"half")
    write(out)
    write(whole)
    files = sorted(path.name for path in whole.iterdir())
    assert files == sorted(
        [*(f"{name}.safetensors" for name in SHARDS), "config.json", "model.safetensors.index.json"]
    )
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        p.name: p.read_bytes() for p in whole.iterdir()
    }
    assert not (tmp_path / "out.partial").exists()
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 48 and index["weight_map"]["x.3"] == "layer-00003.safetensors"


@pytest.mark.parametrize(
    "other",
    [
        ({"model_type": "qwen2"}, {"bits": 4}, {}),
        (CONFIG, {"bits": 8}, {}),
        (CONFIG, {"bits": 4}, {"method": "awq"}),
    ],
)
def test_a_part_of_another_model_is_refused(other: tuple, tmp_path: Path) -> None:
    FolderWriter(tmp_path / "out", CONFIG, {"bits": 4}).add("a", SHARDS["layer-00001"])
    with pytest.raises(
        ValueError, match=r"out\.partial holds a part of another model, or of this one with other set"
    ):
        FolderWriter(tmp_path / "out", *other)


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    with pytest.raises(ValueError, match="is there already"):
        write(tmp_path / "out")
