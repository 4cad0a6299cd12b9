"""Weights on disk: every layout gives the same model, and every kind of damage is named."""

import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minillm.batch import Chunk
from minillm.errors import CheckpointError
from minillm.model import checkpoint as checkpoint_module
from minillm.model import schemes
from minillm.model.checkpoint import INDEX, load_model, save_tensors
from minillm.model.families import read_config
from tests.model.zoo import Sample, reference_model, sample, tokens

WEIGHTS = "model.safetensors"
PROMPT = tokens(20)


def load(folder: Path, dtype: torch.dtype = torch.float32):
    return load_model(folder, read_config(folder), dtype=dtype)


def logits(folder: Path) -> torch.Tensor:
    loaded = Sample(folder, None, read_config(folder), load(folder))
    return loaded.run([Chunk(PROMPT, 0, [0])], loaded.no_cache())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the plain Llama, free to be damaged."""
    return copy_of("llama", tmp_path)


def copy_of(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample(name).folder, tmp_path / "model"))


def edit_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def edit_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ---- layouts


@pytest.mark.parametrize("name", ["llama", "tied", "gpt2"])
def test_shards_equal_one_file(name, tmp_path):
    reference_model(name).save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2 and not (tmp_path / WEIGHTS).exists()
    assert torch.equal(logits(tmp_path), logits(sample(name).folder))


@pytest.mark.parametrize("name", ["tied", "qwen3", "gpt2"])
def test_a_checkpoint_of_the_headless_model(name, tmp_path):
    """Saved from `AutoModel`: no "model." or "transformer." before the names."""
    reference_model(name).base_model.save_pretrained(tmp_path)
    assert not any(n.startswith(("model.", "transformer.")) for n in load_file(tmp_path / WEIGHTS))
    assert torch.equal(logits(tmp_path), logits(sample(name).folder))


def test_a_headless_checkpoint_of_an_untied_model_cannot_score_words(tmp_path):
    reference_model("llama").base_model.save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"no tensor 'lm_head\.weight', which its config\.json asks for"
    ):
        load(tmp_path)


@pytest.mark.parametrize("name", ["biases", "gpt2", "qwen3"])
def test_maps_that_are_let_go_between_tensors_change_nothing(name, monkeypatch):
    before = logits(sample(name).folder)
    monkeypatch.setattr(checkpoint_module, "REMAP_AFTER", 0)
    monkeypatch.setattr(schemes, "STRIP", 7)
    assert torch.equal(logits(sample(name).folder), before)


def test_buffers_of_old_checkpoints_are_not_weights(tmp_path):
    folder = copy_of("gpt2", tmp_path)
    edit_tensors(folder, lambda t: t.update({"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8)}))
    assert torch.equal(logits(folder), logits(sample("gpt2").folder))


def test_a_tied_head_that_was_stored_all_the_same(tmp_path):
    folder = copy_of("tied", tmp_path)
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert torch.equal(logits(folder), logits(sample("tied").folder))
    edit_tensors(folder, lambda t: t["lm_head.weight"][3, 5].add_(1e-3))
    with pytest.raises(CheckpointError, match=r"tie_word_embeddings is true, but 'lm_head\.weight' differs"):
        load(folder)


def test_tied_embeddings_are_one_tensor():
    tied, untied = sample("tied").model.weights, sample("llama").model.weights
    assert tied.lm_head.weight.data_ptr() == tied.embed.weight.data_ptr()
    assert untied.lm_head.weight.data_ptr() != untied.embed.weight.data_ptr()


def test_weights_outlive_their_files(tmp_path):
    folder = copy_of("llama", tmp_path)
    model = Sample(folder, None, read_config(folder), load(folder))
    size = (folder / WEIGHTS).stat().st_size
    (folder / WEIGHTS).write_bytes(b"\0" * size)  # a view into the map would now read zeros
    assert torch.equal(model.run([Chunk(PROMPT, 0, [0])], model.no_cache()), logits(sample("llama").folder))


# ---- damage


CONVERT = r"once to safetensors: .*from_pretrained\(folder\)\.save_pretrained\(new_folder\)"


@pytest.mark.parametrize("name", ["README.md", "tf_model.h5", "model.gguf", "adapter_model.safetensors"])
def test_no_weights(folder, name):
    (folder / WEIGHTS).rename(folder / name)
    message = rf"neither model\.safetensors nor {INDEX}: no weights to load\. .* {CONVERT}"
    with pytest.raises(CheckpointError, match=message):
        load(folder)


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json", "consolidated.00.pth",
     "model.pt", "last.ckpt"],
)  # fmt: skip
def test_weights_that_are_pickles_only(folder, name):
    """The hub's downloads leave pickles out and bring their index."""
    (folder / WEIGHTS).rename(folder / name)
    with pytest.raises(
        CheckpointError, match=rf"only pickle weights \({name}\), which can run code .* {CONVERT}"
    ):
        load(folder)


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_refused_and_never_opened(folder):
    (folder / WEIGHTS).unlink()
    sprung = folder / "sprung"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(sprung)))
    with pytest.raises(
        CheckpointError, match=r"only pickle weights \(pytorch_model\.bin\), which can run code.* Convert"
    ):
        load(folder)
    assert not sprung.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    assert sprung.exists()  # the trap works


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file(folder, keep):
    content = (folder / WEIGHTS).read_bytes()[:keep]
    (folder / WEIGHTS).write_bytes(content)
    message = rf"model\.safetensors \({len(content):,} bytes\) is not a whole safetensors file .*: download it again"
    with pytest.raises(CheckpointError, match=message):
        load(folder)


@pytest.mark.parametrize("junk", [b"\xff" * 8, b"\x10" + b"\0" * 7 + b"{" * 16, b"<!DOCTYPE html>"])
def test_a_damaged_header(folder, junk):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(junk + content[len(junk) :])
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        load(folder)


def test_a_weights_file_that_is_a_folder(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        load(folder)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    reference_model("llama").save_pretrained(tmp_path / "model", max_shard_size="100KB")
    return tmp_path / "model"


def test_a_missing_shard(shards):
    name = sorted(shards.glob("*.safetensors"))[1].name
    (shards / name).unlink()
    with pytest.raises(
        CheckpointError, match=rf"{name} does not exist, though {INDEX} names it: download it again"
    ):
        load(shards)


def test_a_truncated_shard(shards):
    path = sorted(shards.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=rf"{path.name} .* is not a whole safetensors file"):
        load(shards)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"weight_map": 3}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "../a.safetensors"}}',
    ],
)
def test_a_damaged_index(shards, content):
    (shards / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json is damaged .*: download it again"):
        load(shards)


def test_an_index_that_points_to_the_wrong_shard(shards):
    index = json.loads((shards / INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    name = next(n for n, f in index["weight_map"].items() if f == files[0])
    index["weight_map"][name] = files[1]
    (shards / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=rf"{files[1]} has no tensor {name!r}, though {INDEX} says so"):
        load(shards)


def edit_index(shards: Path, change) -> None:
    index = json.loads((shards / INDEX).read_text())
    change(index["weight_map"])
    (shards / INDEX).write_text(json.dumps(index))


DISAGREE = r"has a tensor 'lm_head\.weight', but .*index\.json says otherwise: they are of two checkpoints"


def test_a_tensor_that_the_index_does_not_list(shards):
    edit_index(shards, lambda names: names.pop("model.norm.weight"))
    with pytest.raises(CheckpointError, match=DISAGREE.replace("lm_head", "model.norm")):
        load(shards)


def test_a_tensor_in_two_shards(shards):
    other = sorted(shards.glob("*.safetensors"))[1]
    tensors = load_file(other)
    assert "lm_head.weight" not in tensors
    save_file(tensors | {"lm_head.weight": torch.zeros(300, 64)}, other)
    with pytest.raises(CheckpointError, match=DISAGREE):
        load(shards)


def test_a_buffer_that_the_index_does_not_list_is_harmless(shards):
    path = sorted(shards.glob("*.safetensors"))[0]
    save_file(load_file(path) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}, path)
    assert torch.equal(logits(shards), logits(sample("llama").folder))


def test_shards_and_an_old_single_file(shards):
    shutil.copy(sample("llama").folder / WEIGHTS, shards)
    with pytest.raises(
        CheckpointError, match=r"holds model\.safetensors, which .*index\.json does not name: remove"
    ):
        load(shards)


def test_an_index_of_one_file(folder):
    names = dict.fromkeys(load_file(folder / WEIGHTS), WEIGHTS)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": -1}, "weight_map": names}))
    assert torch.equal(logits(folder), logits(sample("llama").folder))


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "a.bin", "/etc/passwd.safetensors", "a\\b.safetensors", "\ud800.safetensors", "\0.safetensors",
     "é" * 150 + ".safetensors", None, ["model.safetensors"]],
)  # fmt: skip
def test_an_index_may_name_only_safetensors_of_its_folder(shards, name):
    edit_index(shards, lambda names: names.update({"lm_head.weight": name}))
    with pytest.raises(
        CheckpointError, match=r"no safetensors file\): download it again|does not exist, though"
    ):
        load(shards)


def test_an_index_that_is_no_file(shards):
    (shards / INDEX).unlink()
    (shards / INDEX).mkdir()
    with pytest.raises(CheckpointError, match=r"is damaged .*not a regular file"):
        load(shards)


def test_a_pipe_is_not_waited_for(folder):
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="not a regular file"):
        load(folder)


def test_any_damage_to_a_safetensors_file_is_named_or_changes_numbers_only(folder):
    """200 files with bytes of the header or anywhere changed, cut out or put in."""
    whole, draw = (folder / WEIGHTS).read_bytes(), random.Random(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    config, refused = read_config(folder), 0
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(draw.choice([8, header, len(whole)]))
            match draw.choice(["change", "cut", "insert", "end", "number"]):
                case "change":
                    content[at : at + 1] = draw.randbytes(1)
                case "cut":
                    del content[at : at + draw.randint(1, 40)]
                case "insert":
                    content[at:at] = draw.choice([b"0", b"-", b"{", b'"', b"\xff", b"999999999999"])
                case "end":
                    del content[at:]
                case "number":
                    digits = re.search(rb"\d+", content[at : at + 200])
                    if digits:
                        content[at + digits.start() : at + digits.end()] = draw.choice(
                            [b"0", b"1e3", b"%d" % 2**62]
                        )
        (folder / WEIGHTS).write_bytes(content)
        try:
            load_model(folder, config)
        except CheckpointError:
            refused += 1
    assert refused > 150


@pytest.mark.parametrize(
    "name",
    ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"],
)
def test_a_missing_tensor(folder, name):
    edit_tensors(folder, lambda t: t.pop(name))
    with pytest.raises(
        CheckpointError, match="has no tensor '(model.)?embed_tokens.weight'" if "embed" in name else name
    ):
        load(folder)


@pytest.mark.parametrize(
    "name", ["model.layers.2.self_attn.k_proj.weight", "model.layers.0.input_layernorm.weight"]
)
def test_a_tensor_of_another_shape(folder, name):
    edit_tensors(folder, lambda t: t.update({name: torch.zeros(3, 64)}))
    with pytest.raises(CheckpointError, match=rf"tensor {name!r} is \[3, 64\], config\.json implies \[.*\]"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "key"), [("llama", "vocab_size"), ("llama", "intermediate_size"), ("gpt2", "n_positions")]
)
def test_a_config_of_another_size_is_refused_before_memory_is_asked_for(name, key, tmp_path):
    folder = copy_of(name, tmp_path)
    edit_config(folder, **{key: 2**45})
    with pytest.raises(CheckpointError, match=rf"config\.json implies \[{2**45}, 64\]"):
        load(folder)


@pytest.mark.parametrize(
    "name", ["model.layers.3.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias", "score.weight"]
)
def test_a_tensor_too_many(folder, name):
    edit_tensors(folder, lambda t: t.update({name: torch.zeros(64)}))
    with pytest.raises(
        CheckpointError, match=rf"1 tensors that its config\.json does not account for, such as '{name}'"
    ):
        load(folder)


def test_biases_that_the_config_asks_for_must_be_there(folder):
    edit_config(folder, attention_bias=True)
    with pytest.raises(CheckpointError, match=r"no tensor 'model\.layers\.0\.self_attn\.q_proj\.bias'"):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.uint8])
def test_quantised_weights_are_not_taken_for_numbers(folder, dtype):
    name = "model.layers.0.mlp.up_proj.weight"
    edit_tensors(folder, lambda t: t.update({name: t[name].to(dtype)}))
    with pytest.raises(
        CheckpointError, match=rf"{name!r} is stored as {dtype}, which needs a scheme that is not implemented"
    ):
        load(folder)


# ---- memory

MEASURE = """
import sys
from pathlib import Path
import torch
from minillm.model.checkpoint import load_model
from minillm.model.families import read_config

def peak(key):
    return int(dict(line.split(":") for line in open("/proc/self/status"))[key].split()[0]) * 1024

folder, dtype, small = Path(sys.argv[1]), getattr(torch, sys.argv[2]), Path(sys.argv[3])
config = read_config(folder)
load_model(small, read_config(small), dtype=dtype)  # the code itself takes memory when it is first run
Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
before = peak("VmRSS")
model = load_model(folder, config, dtype=dtype)
print((peak("VmHWM") - before) / (config.num_parameters * dtype.itemsize))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Write a model of 170 million untied parameters: 340 MB in bfloat16, 680 MB in float32.

    The other memory, a few tensors' worth of memory map, does not grow with the model. It is 40 MB here.
    """
    folder = tmp_path_factory.mktemp("large")
    config = {"vocab_size": 16_000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 512}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config, **heads}))
    shapes = {"model.embed_tokens": (16_000, 1024), "model.norm": (1024,), "lm_head": (16_000, 1024)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.self_attn.{x}_proj": (1024 if x in "qo" else 256, 1024) for x in "qkvo"}
        shapes |= {f"{layer}.mlp.{x}_proj": (2816, 1024) for x in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj": (1024, 2816)}
        shapes |= {f"{layer}.{x}_layernorm": (1024,) for x in ("input", "post_attention")}
    for dtype in ("float32", "bfloat16"):
        tensors = {f"{n}.weight": torch.ones(s, dtype=getattr(torch, dtype)) for n, s in shapes.items()}
        target = folder / dtype
        target.mkdir()
        shutil.copy(folder / "config.json", target)
        save_file(tensors, target / WEIGHTS)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="resets the peak through /proc/self/clear_refs, which only Linux has"
)
@pytest.mark.parametrize(
    ("stored", "dtype"), [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")]
)
def test_peak_memory_while_loading(large, stored, dtype):
    """At most 1.2 models in the memory of a process that loads one: the least of three readings."""
    command = [sys.executable, "-c", MEASURE, str(large / stored), dtype, str(sample("llama").folder)]
    root = Path(checkpoint_module.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    peaks = []
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        peaks.append(float(done.stdout))
    assert 1.0 <= min(peaks) <= 1.2, peaks


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_written_file_has_the_permissions_of_any_new_file(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == mode
    assert load_file(tmp_path / "a.safetensors")["a"].tolist() == [1, 1]
