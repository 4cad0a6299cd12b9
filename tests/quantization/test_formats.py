"""Checkpoints in stored formats: the numbers that each format defines, and what a damaged one says."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import QuantizationConfig, preset_name_to_scheme
from safetensors.torch import load_file

from minillm import LLM
from minillm.errors import CheckpointError
from minillm.model.linear import Linear
from minillm.model.schemes import Parts
from minillm.quantization.formats.compressed_tensors import CompressedTensors
from minillm.quantization.linear import Joined, QuantizedLinear
from tests.model.zoo import sample
from tests.quantization.stored_models import (
    AWQ,
    CASES,
    GPTQ,
    PROMPT,
    TOKENS,
    compressed,
    compressed_config,
    edit_tensors,
    loaded,
    logits,
    set_quantization,
    two_folders,
)

TOLERANCE = 1e-4
Q = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize("case", CASES)
def test_the_logits_are_those_of_the_numbers_that_the_format_defines(case: str, tmp_path: Path) -> None:
    packed, floats = two_folders("llama", tmp_path, *CASES[case])
    model = loaded(packed)
    for block in model.weights.blocks:
        for projection in (block.qkv, block.o, block.mlp.gate_up, block.mlp.down):  # type: ignore[attr-defined]
            assert isinstance(projection, QuantizedLinear | Joined)
            assert isinstance(projection, Joined) == (
                "own" in case and projection in (block.qkv, block.mlp.gate_up)
            )
            weight = (projection.parts[0] if isinstance(projection, Joined) else projection).weight
            assert (weight.zero is None) == (
                "-symmetric" in case
                or case in ("W4A16", "W4A16-rows", "W8A16", "W8A16-groups", "int-quantized")
            )
    assert isinstance(model.weights.lm_head, Linear)
    assert (logits(model) - logits(loaded(floats))).abs().max() < TOLERANCE
    # Memory: packed numbers, and no floats next to them.
    half, whole = model.nbytes - embedding_bytes(), loaded(floats).nbytes - embedding_bytes()
    assert half < whole * (0.36 if model.weights.blocks[0].o.weight.bits == 8 else 0.27)  # type: ignore[attr-defined]


def embedding_bytes() -> int:
    weights = sample("llama").model.weights
    return weights.embed.weight.nbytes + weights.lm_head.weight.nbytes  # type: ignore[attr-defined]


# ---- which projections are quantised ----


def test_parts_of_one_order_are_joined_and_their_columns_moved(tmp_path: Path) -> None:
    packed, _ = two_folders("llama", tmp_path, *CASES["gptq-act-order"])
    qkv = loaded(packed).weights.blocks[0].qkv
    assert isinstance(qkv, QuantizedLinear) and qkv.order is not None and qkv.weight.shape == (128, 64)


@pytest.mark.parametrize(
    "ignore",
    [
        [
            "lm_head",
            "model.layers.1.self_attn.q_proj",
            "model.layers.0.mlp.gate_proj",
            "model.layers.0.mlp.up_proj",
        ],
        ["lm_head", r"re:.*1\.self_attn\.q_proj$", r"re:.*\.0\.mlp\.(gate|up)_proj"],
    ],
    ids=["names", "patterns"],
)
def test_what_ignore_names_stays_in_floats(ignore: list[str], tmp_path: Path) -> None:
    packed, floats = two_folders("llama", tmp_path, *CASES["W4A16"])
    left = ("model.layers.1.self_attn.q_proj", "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj")

    def put_back(tensors: dict) -> None:
        for name in left:
            for suffix in ("weight_packed", "weight_scale", "weight_shape"):
                del tensors[f"{name}.{suffix}"]
            tensors[f"{name}.weight"] = load_file(floats / "model.safetensors")[f"{name}.weight"]

    edit_tensors(packed, put_back)
    set_quantization(packed, compressed_config(ignore=ignore))
    model = loaded(packed)
    first, second = (block.qkv for block in model.weights.blocks[:2])
    assert isinstance(first, QuantizedLinear) and isinstance(second, Joined)
    assert [type(part) for part in second.parts] == [Linear, QuantizedLinear, QuantizedLinear]
    assert isinstance(model.weights.blocks[0].mlp.gate_up, Linear)  # type: ignore[attr-defined]
    assert (logits(model) - logits(loaded(floats))).abs().max() < TOLERANCE


def test_an_exact_name_counts_before_a_pattern_and_a_pattern_before_the_class(tmp_path: Path) -> None:
    config = compressed_config(bits=8)
    groups = config["config_groups"]
    for name, targets, bits in (("b", ["re:.*down_proj"], 8), ("c", ["model.layers.1.mlp.down_proj"], 4)):
        groups[name] = copy.deepcopy(groups["group_0"])
        groups[name]["targets"] = targets
        groups[name]["weights"] |= {"num_bits": bits, "group_size": 16}
    four, eight = compressed("pack-quantized", 4, 16), compressed("pack-quantized", 8, 32)

    def pack(module: str, weight: torch.Tensor, random: torch.Generator) -> tuple:
        if module == "model.layers.1.mlp.down_proj":
            return four(module, weight, random)
        return (compressed("pack-quantized", 8, 16) if "down" in module else eight)(module, weight, random)

    packed, floats = two_folders("llama", tmp_path, config, pack)
    model = loaded(packed)
    found = [(b.mlp.down.weight.bits, b.mlp.down.weight.group_size) for b in model.weights.blocks]  # type: ignore[attr-defined]
    assert found == [(8, 16), (4, 16), (8, 16)]
    assert (logits(model) - logits(loaded(floats))).abs().max() < TOLERANCE


def test_biases_are_read_and_zeros_of_autogptq_are_none(tmp_path: Path) -> None:
    packed, floats = two_folders("biases", tmp_path, *CASES["gptq"])
    assert (logits(loaded(packed)) - logits(loaded(floats))).abs().max() < TOLERANCE
    packed, floats = two_folders("llama", tmp_path / "again", *CASES["gptq"])
    edit_tensors(packed, lambda tensors: tensors.update({f"{Q}.bias": torch.zeros(64)}))
    assert (logits(loaded(packed)) - logits(loaded(floats))).abs().max() < TOLERANCE
    edit_tensors(packed, lambda tensors: tensors[f"{Q}.bias"].fill_(1))
    with pytest.raises(
        CheckpointError, match=rf"{Q}\.bias' that is not zero, and config.json has no such bias"
    ):
        loaded(packed)


def test_float8_with_one_scale_for_the_whole_matrix(tmp_path: Path) -> None:
    def pack(module: str, weight: torch.Tensor, random: torch.Generator) -> tuple:
        scale = (weight.abs().max() / 448).reshape(1)
        numbers = (weight / scale).to(torch.float8_e4m3fn)
        return {"weight": numbers, "weight_scale": scale}, numbers.float() * scale

    config = compressed_config("float-quantized", 8, None)
    config["config_groups"]["group_0"]["weights"]["strategy"] = "tensor"
    packed, floats = two_folders("llama", tmp_path, config, pack)
    model = loaded(packed)
    assert model.weights.blocks[0].o.kind == "fp8"  # type: ignore[attr-defined]
    assert (logits(model) - logits(loaded(floats))).abs().max() < TOLERANCE
    config["config_groups"]["group_0"]["input_activations"] = TOKENS | {"type": "float"}
    set_quantization(packed, config)
    assert loaded(packed).weights.blocks[0].o.kind == "w8a8_fp8"  # type: ignore[attr-defined]


def test_a_llm_generates_from_packed_weights(tmp_path: Path) -> None:
    packed, _ = two_folders("llama", tmp_path, *CASES["awq"])
    with LLM(packed, max_num_seqs=2, max_model_len=32) as llm:
        (output,) = llm.generate([PROMPT], use_tqdm=False)
        assert output.outputs[0].token_ids
    with pytest.raises(
        CheckpointError, match=r"quantization='int8', and the weights of this model are stored in .*'awq'"
    ):
        LLM(packed, quantization="int8")


# ---- damaged checkpoints ----

GROUP = "config_groups.group_0"
DAMAGED_CONFIGS = [
    (AWQ, "bits", 5, r"bits=5 is not implemented \(implemented: 4\)"),
    (AWQ, "bits", "4", r"bits='4' is not of type int"),
    (AWQ, "bits", None, r"quantization_config has no 'bits'"),
    (AWQ, "group_size", None, r"has no 'group_size'"),
    (AWQ, "zero_point", False, r"zero_point=False is not implemented"),
    (AWQ, "version", "gemv", r"version='gemv' is not implemented \(implemented: 'gemm'"),
    (
        AWQ,
        "quant_method",
        "aqlm",
        r"quant_method='aqlm' is not implemented \(implemented: compressed-tensors, awq, gptq",
    ),
    (AWQ, "quant_method", None, r"quant_method=None is not implemented"),
    (AWQ, "quant_method", ["awq"], r"quant_method=\['awq'\] is not implemented"),
    (GPTQ, "bits", 5, r"bits=5 is not implemented \(implemented: 4, 8\)"),
    (GPTQ, "bits", 3, r"bits=3 is not implemented"),
    (GPTQ, "desc_act", "yes", r"desc_act='yes' is not of type bool"),
    (GPTQ, "checkpoint_format", "marlin", r"checkpoint_format='marlin' is not implemented"),
    (GPTQ, "dynamic", {"-:.*down.*": {}}, r"dynamic=.* is not implemented"),
    (
        compressed_config(),
        "format",
        "marlin-24",
        r"format='marlin-24' is not implemented \(implemented: 'pack-quantized'",
    ),
    (compressed_config(), "format", None, r"has no 'format'"),
    (compressed_config(), "config_groups", None, r"has no 'config_groups'"),
    (compressed_config(), "config_groups", {}, r"config_groups is empty"),
    (compressed_config(), "config_groups", [], r"config_groups=\[\] is not of type dict"),
    (
        compressed_config(),
        "config_groups",
        {"W4A16": ["Linear"]},
        r"config_groups.W4A16=\['Linear'\] is not a table",
    ),
    (
        compressed_config(),
        "quantization_status",
        "frozen",
        r"quantization_status='frozen' is not implemented",
    ),
    (compressed_config(), "ignore", [3], r"ignore has 3, which is not text"),
    (compressed_config(), "ignore", ["re:(a+)+$"], r"ignore has 're:\(a\+\)\+\$', and the search"),
    (compressed_config(), "ignore", ["re:" + ".*a" * 5], "at most four repetitions"),
    (compressed_config(), "ignore", ["re:("], r"ignore has 're:\(', which is no pattern"),
    (compressed_config(), "kv_cache_scheme", {"num_bits": 8}, r"kv_cache_scheme=.* set it to null"),
    (compressed_config(), "sparsity_config", {"format": "sparse-24"}, r"sparsity_config=.* without sparsity"),
    (
        compressed_config(),
        "transform_config",
        {"u": 1},
        r"transform_config=.* may change what the weights mean",
    ),
    (compressed_config(), f"{GROUP}.targets", None, r"group_0 has no 'targets'"),
    (compressed_config(), f"{GROUP}.targets", "Linear", r"targets='Linear' is not of type list"),
    (compressed_config(), f"{GROUP}.weights", None, r"group_0 has no 'weights'"),
    (
        compressed_config(),
        f"{GROUP}.output_activations",
        {"num_bits": 8},
        r"output_activations=.* is not implemented",
    ),
    (
        compressed_config(),
        f"{GROUP}.input_activations",
        TOKENS,
        r"input_activations=.*keeps activations in floats",
    ),
    (
        compressed_config(),
        f"{GROUP}.weights.num_bits",
        5,
        r"num_bits=5 is not implemented \(implemented for pack-quantized: 4 and 8",
    ),
    (compressed_config(), f"{GROUP}.weights.num_bits", None, r"weights has no 'num_bits'"),
    (compressed_config(), f"{GROUP}.weights.num_bits", "4", r"num_bits='4' is not of type int"),
    (
        compressed_config(),
        f"{GROUP}.weights.group_size",
        24,
        r"rows of 64 weights, and group_size=24 does not divide",
    ),
    (compressed_config(), f"{GROUP}.weights.group_size", None, r"group_size=None with strategy='group'"),
    (compressed_config(), f"{GROUP}.weights.group_size", -1, r"group_size=-1 with strategy='group'"),
    (compressed_config(), f"{GROUP}.weights.strategy", "block", r"strategy='block' is not implemented"),
    (compressed_config(), f"{GROUP}.weights.strategy", "tensor", r"strategy='tensor' is not implemented"),
    (compressed_config(), f"{GROUP}.weights.type", "float", r"type='float' is not implemented"),
    (compressed_config(), f"{GROUP}.weights.symmetric", "no", r"symmetric='no' is not of type bool"),
    (compressed_config(), f"{GROUP}.weights.dynamic", True, r"dynamic=True is not implemented"),
    (
        compressed_config(),
        f"{GROUP}.weights.block_structure",
        [128, 128],
        r"block_structure=.* is not implemented",
    ),
    (
        compressed_config("int-quantized", 8, None),
        f"{GROUP}.weights.num_bits",
        4,
        r"num_bits=4 is not implemented",
    ),
    (
        compressed_config("int-quantized", 8, 32),
        f"{GROUP}.input_activations",
        TOKENS,
        r"strategy='group' .*one scale per row",
    ),
    (
        compressed_config("int-quantized", 8, None),
        f"{GROUP}.input_activations",
        TOKENS | {"dynamic": False},
        r"dynamic=False is not implemented",
    ),
    (
        compressed_config("int-quantized", 8, None),
        f"{GROUP}.input_activations",
        TOKENS | {"strategy": "tensor"},
        r"strategy='tensor' is not implemented",
    ),
    (
        compressed_config("int-quantized", 8, None),
        f"{GROUP}.input_activations",
        TOKENS | {"num_bits": 4},
        r"num_bits=4 is not implemented",
    ),
    (
        compressed_config("int-quantized", 8, None),
        f"{GROUP}.input_activations",
        TOKENS | {"type": "float"},
        r"type='float' is not implemented \(the weights are int",
    ),
    (
        compressed_config("float-quantized", 8, None, False),
        "format",
        "float-quantized",
        r"symmetric=False is not implemented",
    ),
]


@pytest.mark.parametrize(("config", "key", "value", "says"), DAMAGED_CONFIGS, ids=range(len(DAMAGED_CONFIGS)))
def test_a_damaged_quantization_config_is_named(
    config: dict, key: str, value: object, says: str, tmp_path: Path
) -> None:
    config = copy.deepcopy(config)
    *path, last = key.split(".")
    table = config
    for part in path:
        table = table[part]
    if value is None:
        table.pop(last)
    else:
        table[last] = value
    set_quantization(folder := copied("llama", tmp_path), config)
    with pytest.raises(CheckpointError, match=says):
        loaded(folder)


@pytest.mark.parametrize("size", [0, 48, 128])
@pytest.mark.parametrize("case", ["awq", "gptq"])
def test_a_group_size_that_does_not_divide_a_row(case: str, size: int, tmp_path: Path) -> None:
    packed, _ = two_folders("llama", tmp_path, *CASES[case])
    set_quantization(packed, CASES[case][0] | {"group_size": size})
    with pytest.raises(CheckpointError, match=rf"rows of 64 weights, and group_size={size} does not divide"):
        loaded(packed)


def config_of(preset: str) -> dict:
    """The quantization_config that compressed-tensors itself writes for one of its schemes."""
    scheme = preset_name_to_scheme(preset, ["Linear"])
    scheme.format = infer_module_format(torch.nn.Linear, scheme)
    config = QuantizationConfig(
        config_groups={"group_0": scheme},
        format=scheme.format,
        quantization_status="compressed",
        ignore=["lm_head"],
    )
    return json.loads(config.model_dump_json()) | {
        "version": "0.20",
        "sparsity_config": {},
        "transform_config": {},
    }


@pytest.mark.parametrize(
    ("preset", "kind"),
    [
        ("W4A16", "int4"),
        ("W4A16_ASYM", "int4"),
        ("W8A16", "int8"),
        ("W8A8", "w8a8"),
        ("FP8_DYNAMIC", "w8a8_fp8"),
    ],
)
def test_the_schemes_of_compressed_tensors(preset: str, kind: str) -> None:
    (group,) = CompressedTensors.from_config(config_of(preset)).groups
    assert group.kind == kind and group.symmetric == (preset != "W4A16_ASYM")
    assert group.group_size == (128 if "A16" in preset else None)


@pytest.mark.parametrize(
    ("preset", "says"),
    [
        ("FP8", r"strategy='tensor' is not implemented"),
        ("FP8_BLOCK", r"block_structure=\[128, 128\] is not implemented|strategy='block' is not implemented"),
        ("W4A8", r"num_bits=4 is not implemented \(implemented for int-quantized: 8"),
        ("W3A16", r"num_bits=3 is not implemented"),
        ("NVFP4A16", r"format='nvfp4-pack-quantized' is not implemented"),
        ("MXFP4A16", r"format='mxfp4-pack-quantized' is not implemented"),
    ],
)
def test_schemes_that_are_not_implemented(preset: str, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        CompressedTensors.from_config(config_of(preset))


def copied(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample(name).folder, tmp_path / "model"))


@pytest.mark.parametrize("value", ["gptq", 4, [{}]])
def test_a_quantization_config_that_is_no_table(value: object, tmp_path: Path) -> None:
    set_quantization(folder := copied("llama", tmp_path), value)
    with pytest.raises(CheckpointError, match=r"quantization_config=.* is not a table"):
        loaded(folder)


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict], object]:
    return lambda tensors: tensors.update({f"{Q}.{name}": change(tensors[f"{Q}.{name}"]).contiguous()})


def without(name: str) -> Callable[[dict], object]:
    return lambda tensors: tensors.pop(f"{Q}.{name}")


DAMAGED_TENSORS = [
    ("awq", without("scales"), r"no tensor '.*q_proj\.scales'"),
    ("awq", without("qzeros"), r"no tensor '.*q_proj\.qzeros'"),
    ("awq", without("qweight"), r"no tensor '.*q_proj\.qweight'"),
    (
        "awq",
        changed("qweight", lambda x: x[:-1]),
        r"q_proj\.qweight' is \[63, 8\], config.json implies \[64, 8\]",
    ),
    ("awq", changed("qweight", lambda x: x.long()), r"q_proj\.qweight' is stored as torch\.int64"),
    (
        "awq",
        changed("scales", lambda x: x.t()),
        r"q_proj\.scales' is \[64, 2\], config.json implies \[2, 64\]",
    ),
    ("gptq", without("scales"), r"no tensor '.*q_proj\.scales'"),
    (
        "gptq",
        changed("qzeros", lambda x: x[:, 1:]),
        r"q_proj\.qzeros' is \[2, 7\], config.json implies \[2, 8\]",
    ),
    ("gptq-act-order", without("g_idx"), r"no tensor '.*q_proj\.g_idx'"),
    (
        "gptq-act-order",
        changed("g_idx", lambda x: x + 1),
        r"g_idx' has a column of group 2, and its groups are 0 to 1",
    ),
    ("gptq-act-order", changed("g_idx", lambda x: x - 1), r"g_idx' has a column of group -1"),
    ("gptq-act-order", changed("g_idx", lambda x: x * 0), r"g_idx' has groups of 0 to 64 columns"),
    ("gptq-act-order", changed("g_idx", lambda x: x[:8]), r"g_idx' is \[8\], config.json implies \[64\]"),
    ("W4A16", without("weight_scale"), r"no tensor '.*q_proj\.weight_scale'"),
    ("W4A16", without("weight_packed"), r"no tensor '.*q_proj\.weight_packed'"),
    (
        "W4A16",
        changed("weight_packed", lambda x: x[:, :4]),
        r"weight_packed' is \[64, 4\], config.json implies \[64, 8\]",
    ),
    ("W4A16", changed("weight_packed", lambda x: x.byte()), r"weight_packed' is stored as torch\.uint8"),
    (
        "W4A16",
        changed("weight_shape", lambda x: x * 2),
        r"weight_shape says \[128, 128\], and config.json implies \[64, 64\]",
    ),
    (
        "W4A16",
        changed("weight_scale", lambda x: x[:, :1]),
        r"weight_scale' is \[64, 1\], config.json implies \[64, 2\]",
    ),
    ("W4A16", changed("weight_scale", lambda x: x.int()), r"weight_scale' is stored as torch\.int32"),
    ("W4A16-asymmetric", without("weight_zero_point"), r"no tensor '.*q_proj\.weight_zero_point'"),
    ("int-quantized", changed("weight", lambda x: x.float()), r"q_proj\.weight' is stored as torch\.float32"),
    (
        "W4A16",
        lambda tensors: tensors.update({f"{Q}.input_scale": torch.ones(1)}),
        r"holds 1 tensors that its config.json does not account for, such as '.*input_scale'",
    ),
]


@pytest.mark.parametrize(("case", "change", "says"), DAMAGED_TENSORS, ids=range(len(DAMAGED_TENSORS)))
def test_a_damaged_tensor_is_named(case: str, change: Callable, says: str, tmp_path: Path) -> None:
    packed, _ = two_folders("llama", tmp_path, *CASES[case])
    edit_tensors(packed, change)
    with pytest.raises(CheckpointError, match=says):
        loaded(packed)


@pytest.mark.parametrize(
    "config", [AWQ, GPTQ, compressed_config()], ids=["awq", "gptq", "compressed-tensors"]
)
def test_matrices_of_gpt2_are_never_packed(config: dict, tmp_path: Path) -> None:
    folder = copied("gpt2", tmp_path)

    def packed(tensors: dict) -> None:
        for name in [n for n in tensors if n.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))]:
            tensors[name.replace(".weight", ".qweight")] = torch.zeros(8, 8, dtype=torch.int32)
            del tensors[name]

    edit_tensors(folder, packed)
    set_quantization(folder, config)
    with pytest.raises(
        CheckpointError, match=r"c_attn' is a matrix \[in, out\] in this family.*load the unquantised"
    ):
        loaded(folder)


def test_rows_of_odd_length_have_no_4_bits(tmp_path: Path) -> None:
    group = compressed_config(group_size=None)
    scheme = CompressedTensors.from_config(group)
    with pytest.raises(CheckpointError, match="rows of 33 weights of 4 bits, which do not fill whole bytes"):
        scheme.groups[0].load(None, Parts(("a",), 33, (4,)))  # type: ignore[arg-type]
