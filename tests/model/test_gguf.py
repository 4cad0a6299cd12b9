"""GGUF files against the model that they were written from, and against the reader of `transformers`."""

import re
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.batch import Chunk
from minillm.errors import CheckpointError
from minillm.model import gguf as gguf_module
from minillm.model.gguf import unpack
from minillm.model.stored import GgufModel, HubFolder, open_model
from tests.model.gguf_files import write_gguf
from tests.model.zoo import COMMON, Sample, sample, tokens

TOLERANCE = 1e-4
PROMPT = tokens(24, seed=5)
FAMILIES = (
    "llama llama3-rope yarn-rope linear-rope biases tied head_dim-apart gqa-1 gqa-4 smollm "
    "qwen2 qwen3 qwen3-bias mistral mistral-window"
).split()
CPU = torch.device("cpu")


def loaded(path: Path, reference: transformers.PreTrainedModel) -> Sample:
    stored = open_model(path)
    return Sample(path, reference, stored.config, stored.weights(CPU, torch.float32))


def logits(model: Sample) -> torch.Tensor:
    return model.run([Chunk(PROMPT, 0, [0])], model.no_cache())


def theirs(path: Path) -> transformers.PreTrainedModel:
    """The model as `transformers` reads it from the GGUF file."""
    load = transformers.AutoModelForCausalLM.from_pretrained
    return load(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sound file, in a folder of its own."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "llama.gguf", sample("llama").reference)


# ---- the numbers ----


@pytest.mark.parametrize("name", FAMILIES)
def test_the_logits_are_those_of_the_model_that_was_written(name: str, tmp_path: Path) -> None:
    reference = sample(name).reference
    model = loaded(write_gguf(tmp_path / "model.gguf", reference), reference)
    assert (logits(model) - model.expected(PROMPT)).abs().max().item() <= TOLERANCE
    assert model.config.num_parameters == sum(p.numel() for p in reference.parameters())


@pytest.mark.parametrize("name", ["llama", "qwen2"])
@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_the_logits_of_every_stored_type_are_those_of_transformers(
    name: str, kind: str, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "model.gguf", sample(name).reference, Type[kind])
    model = loaded(path, theirs(path))
    error = (logits(model) - model.expected(PROMPT)).abs().max().item()
    change = (logits(model) - sample(name).expected(PROMPT)).abs().max().item()
    assert error <= TOLERANCE < change  # the type is another than float32


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K"])
def test_k_quants(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library cannot write these: the blocks are random, with scales of a sensible size."""
    block_bytes = gguf.GGML_QUANT_SIZES[Type[kind]][1]
    random_bytes = np.random.default_rng(0)

    def blocks(numbers: np.ndarray, wanted: Type) -> np.ndarray:
        if wanted is Type.F32:
            return numbers
        data = random_bytes.integers(0, 256, (numbers.size // 256, block_bytes), dtype=np.uint8)
        scales = slice(208, 210) if kind == "Q6_K" else slice(0, 4)
        data[:, scales] = np.full((len(data), (scales.stop - scales.start) // 2), 1e-4, np.float16).view(
            np.uint8
        )
        return data.reshape(*numbers.shape[:-1], -1)

    monkeypatch.setattr(gguf.quants, "quantize", blocks)
    config = transformers.LlamaConfig(**COMMON | {"hidden_size": 256, "intermediate_size": 256})
    path = write_gguf(tmp_path / "model.gguf", transformers.LlamaForCausalLM(config), Type[kind])
    model = loaded(path, theirs(path))
    assert model.expected(PROMPT).std() > 0.01
    assert (logits(model) - model.expected(PROMPT)).abs().max().item() <= TOLERANCE


def test_a_large_tensor_is_unpacked_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(0).normal(size=(37, 64)).astype(np.float32)
    packed = gguf.quants.quantize(numbers, Type.Q4_0)
    whole = gguf.quants.dequantize(packed, Type.Q4_0)
    monkeypatch.setattr(gguf_module, "STRIP", 5 * 64)
    sizes = []

    def counted(rows: np.ndarray, kind: Type) -> np.ndarray:
        sizes.append(len(rows))
        return gguf.quants.dequantize(rows, kind)

    monkeypatch.setattr(gguf_module, "dequantize", counted)
    assert torch.equal(unpack(packed, Type.Q4_0), torch.from_numpy(whole))
    assert sizes == [5] * 7 + [2]


@pytest.mark.parametrize(
    ("kind", "dtype"), [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16"), ("Q8_0", "bfloat16")]
)
def test_the_dtype_for_a_gpu(kind: str, dtype: str, tmp_path: Path) -> None:
    assert (
        open_model(write_gguf(tmp_path / "m.gguf", sample("llama").reference, Type[kind])).config.dtype
        == dtype
    )


# ---- settings ----


def config_with(tmp_path: Path, name: str = "llama", **changes: object):
    metadata = {key.replace("__", "."): value for key, value in changes.items()}
    return open_model(write_gguf(tmp_path / "model.gguf", sample(name).reference, metadata=metadata)).config


def test_the_config_is_that_of_the_folder(tmp_path: Path) -> None:
    for name in ("smollm", "qwen3", "mistral-window", "linear-rope"):
        ours, theirs = config_with(tmp_path, name), sample(name).config
        assert repr(ours).replace(repr(ours.norm_eps), repr(theirs.norm_eps)) == repr(theirs)
        assert ours.norm_eps == pytest.approx(theirs.norm_eps)


def test_what_the_file_may_leave_out(tmp_path: Path) -> None:
    left_out = (
        "attention.key_length",
        "attention.value_length",
        "rope.dimension_count",
        "vocab_size",
        "rope.freq_base",
    )
    assert config_with(tmp_path, **{f"llama__{key}": None for key in left_out}) == config_with(tmp_path)
    assert config_with(tmp_path, "gqa-1", llama__attention__head_count_kv=None) == config_with(
        tmp_path, "gqa-1"
    )


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("block_count", None, "has no llama.block_count, which"),
        ("context_length", None, "has no llama.context_length"),
        ("embedding_length", None, "has no llama.embedding_length"),
        ("feed_forward_length", None, "has no llama.feed_forward_length"),
        ("attention.head_count", None, "has no llama.attention.head_count"),
        ("attention.layer_norm_rms_epsilon", None, "has no llama.attention.layer_norm_rms_epsilon"),
        ("attention.head_count", 0, "llama.attention.head_count=0 must be a number above 0"),
        ("attention.head_count_kv", [2, 2, 1], r"head_count_kv=\[2, 2, 1\] must be a number"),
        ("feed_forward_length", "wide", "feed_forward_length='wide' must be a number"),
        ("block_count", 2.5, "num_hidden_layers=2.5 is not of type int"),
        ("attention.head_count", 3, "head_dim|multiple|implemented: 21"),
        ("rope.dimension_count", 8, r"llama.rope.dimension_count=8 is not implemented \(implemented: 16"),
        ("attention.value_length", 8, "llama.attention.value_length=8 is not implemented"),
        ("attention.causal", False, "llama.attention.causal=False is not implemented"),
        ("attention.clamp_kqv", 8.0, "llama.attention.clamp_kqv=8.0 is not implemented .*may change the model"),
        ("expert_count", 8, "llama.expert_count=8 is not implemented"),
        ("logit_scale", 0.5, "llama.logit_scale=0.5 is not implemented"),
        ("attention.scale", 1.0, "llama.attention.scale=1.0 is not implemented"),
        ("some.thing_new", "x", "llama.some.thing_new='x' is not implemented"),
        ("rope.scaling.type", "longrope", "llama.rope.scaling.type='longrope' is not implemented .*yarn"),
    ],
)  # fmt: skip
def test_a_setting_that_is_missing_wrong_or_unknown(
    key: str, value: object, says: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=f"model.gguf.*(?:{says})"):
        config_with(tmp_path, **{f"llama.{key}": value})


@pytest.mark.parametrize(
    ("key", "value"),
    [("expert_count", 0), ("expert_used_count", 0), ("rope.scaling.finetuned", True), ("rope.scaling.type", "none"),
     ("rope.scaling.factor", 1.0), ("attention.causal", True), ("tensor_data_layout", "Meta AI original pth"),
     ("logit_scale", 1.0), ("attention.sliding_window", 0)],
)  # fmt: skip
def test_a_setting_that_changes_nothing(key: str, value: object, tmp_path: Path) -> None:
    assert config_with(tmp_path, **{f"llama.{key}": value}) == config_with(tmp_path)


def test_a_scaling_factor_without_a_type_is_linear(tmp_path: Path) -> None:
    """As in llama.cpp."""
    assert config_with(tmp_path, "linear-rope", **{"llama.rope.scaling.type": None}).rope.type == "linear"


def test_yarn_with_another_attention_factor_is_refused(tmp_path: Path) -> None:
    for key in ("rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_ext_factor"):
        config_with(tmp_path, "yarn-rope", **{f"llama.{key}": 1.0})
        with pytest.raises(CheckpointError, match=rf"llama\.{re.escape(key)}=2.0 is not implemented"):
            config_with(tmp_path, "yarn-rope", **{f"llama.{key}": 2.0})


@pytest.mark.parametrize(
    ("name", "table", "says"),
    [
        ("llama", torch.ones(5), r"is F32 \[5\] and must be F32 \[8\]"),
        ("llama", torch.zeros(8), "must hold numbers above 0"),
        ("linear-rope", torch.ones(8), "stretches RoPE twice, by 'linear' and by a table"),
    ],
)
def test_a_table_of_rope_factors_that_does_not_fit(
    name: str, table: torch.Tensor, says: str, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "model.gguf", sample(name).reference, add={"rope_freqs.weight": table})
    with pytest.raises(CheckpointError, match=f"model.gguf.*{says}"):
        open_model(path)


@pytest.mark.parametrize("architecture", ["gemma3", "phi3", "gpt2", "mamba"])
def test_another_architecture_is_refused_by_name(architecture: str, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=f"general.architecture='{architecture}'.*llama, qwen2, qwen3"):
        open_model(path)


def test_every_end_token_ends_a_sequence(tmp_path: Path) -> None:
    ids = {
        "tokenizer.ggml.eos_token_id": 7,
        "tokenizer.ggml.eot_token_id": 8,
        "tokenizer.ggml.eom_token_id": 9,
    }
    assert config_with(tmp_path, **ids).eos_token_ids == (7, 8, 9)
    none = {"tokenizer.ggml.eos_token_id": None, "tokenizer.ggml.bos_token_id": None}
    config = config_with(tmp_path, **none)
    assert config.eos_token_ids == () and config.bos_token_id is None


def test_the_recommended_sampling(tmp_path: Path) -> None:
    keys = {
        "general.sampling.temp": 0.5,
        "general.sampling.top_k": 20,
        "general.sampling.top_p": 0.75,
        "general.sampling.min_p": 0.25,
        "general.sampling.penalty_repeat": 1.5,
    }
    path = write_gguf(tmp_path / "m.gguf", sample("llama").reference, metadata=keys)
    assert open_model(path).generation.sampling == {
        "temperature": 0.5, "top_k": 20, "top_p": 0.75, "min_p": 0.25, "repetition_penalty": 1.5,
    }  # fmt: skip
    bad = write_gguf(
        tmp_path / "bad.gguf", sample("llama").reference, metadata={"general.sampling.top_p": 7.0}
    )
    with pytest.raises(CheckpointError, match=r"bad.gguf.*top_p"):
        open_model(bad)


# ---- tensors that do not fit ----


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"leave_out": "blk.1.ffn_up.weight"}, "no tensor for 'model.layers.1.mlp.up_proj.weight'"),
        ({"leave_out": "token_embd.weight"}, "no tensor for 'model.embed_tokens.weight'"),
        ({"add": {"blk.0.attn_sinks.weight": torch.ones(4)}}, "1 tensors that its metadata does not .*attn_sinks"),
        ({"add": {"blk.3.ffn_up.weight": torch.ones(96, 64)}}, "does not account for.*layers.3"),
        ({"add": {"blk.1.attn_q.bias": torch.ones(64)}}, "does not account for.*q_proj.bias"),
        ({"metadata": {"llama.feed_forward_length": 64}}, r"is \[96, 64\], metadata implies \[64, 64\]"),
        ({"metadata": {"llama.vocab_size": 299}}, r"is \[300, 64\], metadata implies \[299, 64\]"),
        ({"metadata": {"llama.attention.head_count_kv": 4}}, r"k_proj.* is \[32, 64\], metadata implies \[64, 64\]"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_those_of_the_model(change: dict, says: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", sample("llama").reference, **change)
    with pytest.raises(CheckpointError, match=f"model.gguf.*{says}"):
        open_model(path).weights(CPU, torch.float32)


# ---- damaged files ----


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    for content in (b"", b"GGU", b"ggjt\x03\0\0\0", b"PK\x03\x04" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(
            CheckpointError, match=r"model.bin is not a GGUF file: it begins with .*safetensors"
        ):
            open_model(path)


@pytest.mark.parametrize(
    ("version", "says"), [(1, "GGUF version 1,"), (4, "GGUF version 4,"), (0, "version 0,")]
)
def test_another_version(version: int, says: str, llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + version.to_bytes(4, "little") + llama.read_bytes()[8:])
    with pytest.raises(CheckpointError, match=f"{says}.*Convert the model again"):
        open_model(path)


def test_a_big_endian_file(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", sample("llama").reference, endianess=gguf.GGUFEndian.BIG)
    with pytest.raises(CheckpointError, match=r"m.gguf is big-endian.*little-endian"):
        open_model(path)


def test_one_part_of_a_split_model(tmp_path: Path) -> None:
    path = tmp_path / "m-00001-of-00002.gguf"
    write_gguf(path, sample("llama").reference, metadata={"split.count": 2, "split.no": 0})
    with pytest.raises(CheckpointError, match=r"m-00001-of-00002.gguf is one of 2 parts.*--merge"):
        open_model(path)


def test_an_unknown_type_of_tensor(llama: Path, tmp_path: Path) -> None:
    entry = (
        b"token_embd.weight"
        + (2).to_bytes(4, "little")
        + (64).to_bytes(8, "little")
        + (300).to_bytes(8, "little")
    )
    content = llama.read_bytes()
    at = content.index(entry) + len(entry)
    for number, says in (
        (999, "has type 999, which the gguf library does not know"),
        (24, "type I8 cannot be unpacked"),
    ):
        path = tmp_path / "model.gguf"
        path.write_bytes(content[:at] + number.to_bytes(4, "little") + content[at + 4 :])
        with pytest.raises(CheckpointError, match=f"{says}.*Q4_K_M"):
            open_model(path).weights(CPU, torch.float32)


def test_a_truncated_file(llama: Path, tmp_path: Path) -> None:
    content, path = llama.read_bytes(), tmp_path / "model.gguf"
    header = content.index(b"blk.2.ffn_down.weight")
    for size in [*range(4, header, 97), header, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(
            CheckpointError, match=rf"model.gguf is damaged: .*{size:,} bytes.*Download the file again"
        ):
            open_model(path)


@settings(max_examples=100)
@given(data=st.data())
@pytest.mark.slow
def test_a_damaged_header_is_an_error_or_another_model(data: st.DataObject, llama: Path) -> None:
    content = bytearray(llama.read_bytes())
    end = content.index(b"output_norm.weight") + 60
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(4, end))] = data.draw(st.integers(0, 255))
    path = llama.with_name("damaged.gguf")
    path.write_bytes(content)
    try:
        stored = open_model(path)
        if stored.config.num_parameters < 10**6:
            stored.weights(CPU, torch.float32)
        stored.tokenizer()
    except CheckpointError as error:
        assert re.search(r"damaged\.gguf|cannot be unpacked", str(error))  # noqa: PT017


def test_counts_that_are_absurd_take_no_time(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for counts in ((2**63, 0), (0, 2**63)):
        path.write_bytes(
            b"GGUF" + (3).to_bytes(4, "little") + b"".join(n.to_bytes(8, "little") for n in counts)
        )
        with pytest.raises(CheckpointError, match="damaged"):
            open_model(path)
    array = (9).to_bytes(4, "little") + (8).to_bytes(4, "little") + (2**62).to_bytes(8, "little")
    key = (1).to_bytes(8, "little") + b"k"
    path.write_bytes(
        b"GGUF"
        + (3).to_bytes(4, "little")
        + (0).to_bytes(8, "little")
        + (1).to_bytes(8, "little")
        + key
        + array
    )
    with pytest.raises(CheckpointError, match="damaged"):
        open_model(path)


@pytest.mark.parametrize("what", ["key", "tensor"])
def test_a_name_that_is_there_twice(what: str, llama: Path, tmp_path: Path) -> None:
    old, new = {
        "key": (b"llama.vocab_size", b"llama.block_coun"),
        "tensor": (b"blk.1.ffn_up", b"blk.0.ffn_up"),
    }[what]
    content = llama.read_bytes()
    assert content.count(old) == 1
    content = content.replace(old, new)
    if what == "key":
        content = content.replace(b"llama.block_count", b"llama.block_coun", 1)
        content = content.replace(
            (17).to_bytes(8, "little") + b"llama.block_coun",
            (16).to_bytes(8, "little") + b"llama.block_coun",
            1,
        )
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged: the (key|tensor) .* is there twice"):
        open_model(tmp_path / "m.gguf")


@pytest.mark.parametrize("alignment", [0, 12, "x"])
def test_an_alignment_that_is_no_power_of_two(alignment: object, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    getattr(writer, "add_uint32" if type(alignment) is int else "add_string")("general.alignment", alignment)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=r"general\.alignment is .* must be a power of two"):
        open_model(tmp_path / "m.gguf")


def test_another_alignment(tmp_path: Path) -> None:
    reference = sample("llama").reference
    model = loaded(write_gguf(tmp_path / "m.gguf", reference, metadata={"general.alignment": 256}), reference)
    assert (logits(model) - model.expected(PROMPT)).abs().max().item() <= TOLERANCE


# ---- where it is ----


def test_a_folder_with_one_file_is_that_model(llama: Path, tmp_path: Path) -> None:
    shutil.copy(llama, tmp_path / "model.GGUF")
    (tmp_path / "README.md").write_text("")
    model = open_model(tmp_path)
    assert isinstance(model, GgufModel) and model.file.path == tmp_path / "model.GGUF"


def test_a_folder_with_two_files_names_them(llama: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(llama, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"holds 2 GGUF files \(a.gguf, b.gguf\): give the path of one"):
        open_model(tmp_path)


def test_safetensors_win_over_a_gguf_file(llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sample("llama").folder, tmp_path / "both")
    shutil.copy(llama, folder)
    assert isinstance(open_model(folder), HubFolder)
    (folder / "model.safetensors").unlink()
    assert isinstance(open_model(folder), GgufModel)


def test_a_file_without_the_ending_is_read_too(llama: Path, tmp_path: Path) -> None:
    """Ollama keeps models under the name of their hash."""
    path = shutil.copy(llama, tmp_path / "sha256-0123")
    assert open_model(Path(path)).config == open_model(llama).config


def test_the_file_may_go_before_the_weights_are_read(llama: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(llama, tmp_path))
    model = open_model(path)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"llama.gguf: tensor .* cannot be read"):
        model.weights(CPU, torch.float32)
