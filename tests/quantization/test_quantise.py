"""The driver: folders that load as they were simulated, runs that are stopped and continued, and what it refuses."""

import json
import shutil
import weakref
from pathlib import Path

import pytest
import safetensors.torch
import torch
from gguf import GGMLQuantizationType as Type

from minillm import LLM
from minillm.cli import main
from minillm.model.stored import open_model
from minillm.quantization import quantise as module
from minillm.quantization.compare import compare
from minillm.quantization.methods import METHODS, simulate
from minillm.quantization.quantise import calibration_windows, quantise
from minillm.quantization.schemes import scheme_for
from tests.engine import tiny
from tests.model.gguf_files import tokenizer_metadata, write_gguf
from tests.model.zoo import sample, tokens

WRITTEN = [name for name, method in METHODS.items() if method.kinds]
WITH_TEXT = [name for name in WRITTEN if METHODS[name].from_text is not None]
EVALUATION = [tokens(20, seed) for seed in range(3)]


class Killed(BaseException):
    """The signal that kills a process."""


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "calibration.txt"
    path.write_text("\n".join(tiny.TEXTS * 10), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A model of three layers in bfloat16, with a tokenizer."""
    path = tmp_path_factory.mktemp("model") / "model"
    shutil.copytree(sample("llama").folder, path)
    tiny.save_tokenizer(path)
    tensors = safetensors.torch.load_file(path / "model.safetensors")
    safetensors.torch.save_file(
        {name: tensor.bfloat16() for name, tensor in tensors.items()},
        path / "model.safetensors",
        {"format": "pt"},
    )
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return path


def load(path: Path):
    stored = open_model(path)
    scheme = scheme_for(stored.quantization_config, None)
    return stored.weights(torch.device("cpu"), torch.float32, None, scheme)


def run(source: Path, out: Path, text: Path, method: str, **settings) -> Path:
    quantise(open_model(source), out, method, calibration=text, **settings)
    return out


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("method", WRITTEN)
def test_the_folder_computes_what_was_simulated(method, source, text, tmp_path):
    written = load(run(source, tmp_path / "out", text, method))
    model = load(source)
    simulated = simulate(model, method, windows=calibration_windows(open_model(source), text))
    assert compare(written, simulated, EVALUATION).kl < 1e-9
    assert 0 < compare(written, model, EVALUATION).kl < 0.2
    assert written.nbytes < model.nbytes
    stored = safetensors.torch.load_file(tmp_path / "out" / "layer-00000.safetensors")
    scales = {tensor.dtype for name, tensor in stored.items() if name.endswith("weight_scale")}
    assert scales == {torch.bfloat16}
    ids = [1, 5, 9, 200]
    with LLM(tmp_path / "out") as llm:
        assert llm.generate([ids])[0].prompt_token_ids == ids


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
def test_groups_and_rows_of_either_number_of_bits(method, bits, source, text, tmp_path):
    for group_size in (-1, 16, 32):
        out = tmp_path / str(group_size)
        written = load(run(source, out, text, method, bits=bits, group_size=group_size))
        weight = written.weights.blocks[1].mlp.down.weight
        assert weight.bits == bits and weight.group_size == (96 if group_size == -1 else group_size)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 2])
@pytest.mark.parametrize("method", WRITTEN)
def test_a_run_that_was_killed_continues_to_the_same_bytes(method, stop, source, text, tmp_path):
    def kill(done, total):
        if done == stop:
            raise Killed

    with pytest.raises(Killed):
        run(source, tmp_path / "out", text, method, progress=kill)
    assert not (tmp_path / "out").exists()
    steps = []
    run(source, tmp_path / "out", text, method, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert files(tmp_path / "out") == files(run(source, tmp_path / "whole", text, method))


@pytest.mark.parametrize("method", WITH_TEXT)
def test_finished_layers_are_not_quantised_again(method, source, text, tmp_path, monkeypatch):
    def kill(done, total):
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        run(source, tmp_path / "out", text, method, progress=kill)
    quantised = []
    apply = module.Recipe.apply

    def counted(self, stream, block):
        quantised.append(stream.layer)
        return apply(self, stream, block)

    monkeypatch.setattr(module.Recipe, "apply", counted)
    run(source, tmp_path / "out", text, method)
    assert quantised == [2]


def test_another_text_or_setting_does_not_continue_a_part(source, text, tmp_path):
    def kill(done, total):
        if done == 1:
            raise Killed

    with pytest.raises(Killed):
        run(source, tmp_path / "out", text, "gptq", progress=kill)
    other = tmp_path / "other.txt"
    other.write_text(text.read_text() + "more" * 900)
    for settings in (
        {"text": other},
        {"act_order": True},
        {"group_size": 16},
        {"bits": 8},
        {"method": "awq"},
    ):
        with pytest.raises(ValueError, match=r"out\.partial holds a part of another model"):
            run(source, tmp_path / "out", **{"text": text, "method": "gptq"} | settings)


def test_other_weights_do_not_continue_a_part(source, text, tmp_path):
    def kill(done, total):
        if done == 1:
            raise Killed

    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    with pytest.raises(Killed):
        run(copy, tmp_path / "out", text, "rtn", progress=kill)
    tensors = safetensors.torch.load_file(copy / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"] *= 2
    safetensors.torch.save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"out\.partial holds a part of another model"):
        run(copy, tmp_path / "out", text, "rtn")


def test_one_layer_is_in_floats_at_a_time(source, text, tmp_path, monkeypatch):
    layers = []
    block_in_float32 = module._block_in_float32

    def tracked(block):
        assert sum(layer() is not None for layer in layers) <= 1  # the one before, which is about to go
        found = block_in_float32(block)
        layers.append(weakref.ref(found.o.weight))
        return found

    monkeypatch.setattr(module, "_block_in_float32", tracked)
    for method in WRITTEN:
        layers.clear()
        run(source, tmp_path / method, text, method)
        assert len(layers) == 3


def test_windows_are_spread_over_a_long_text(source, tmp_path, monkeypatch):
    text = tmp_path / "long.txt"
    text.write_text(" ".join(map(str, range(2000))))
    stored = open_model(source)
    monkeypatch.setattr(module, "NUM_WINDOWS", 5)
    windows = calibration_windows(stored, text)
    ids = stored.tokenizer().encode(text.read_text())
    assert len(windows) == 5 and {len(window) for window in windows} == {
        stored.config.max_position_embeddings
    }
    size = len(windows[0])
    pieces = [ids[i : i + size] for i in range(0, len(ids) - size + 1, size)]
    assert windows == [pieces[i * len(pieces) // 5] for i in range(5)]
    monkeypatch.setattr(module, "NUM_WINDOWS", 10**6)
    assert calibration_windows(stored, text) == pieces


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.Q8_0])
@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_a_gguf_file_is_quantised_from_its_floats(method, kind, text, tmp_path):
    numbers = {"pre": "gpt-2", "bos_token_id": 0, "eos_token_id": 0, "add_bos_token": True}
    metadata = tokenizer_metadata(tiny.byte_level_tokenizer(), "gpt2", **numbers)
    path = write_gguf(tmp_path / "tiny.gguf", tiny.reference(), kind, metadata)
    out = run(path, tmp_path / "out", text, method, bits=4, group_size=32)
    if kind is Type.F32:
        shard = "layer-00001.safetensors"
        assert (
            files(out)[shard]
            == files(run(tiny.folder(), tmp_path / "same", text, method, group_size=32))[shard]
        )
    floats = open_model(path).weights(torch.device("cpu"), torch.float32)
    assert 0 < compare(load(out), floats, EVALUATION).kl < 0.5
    with LLM(out, max_num_seqs=1) as llm:
        assert llm.generate("the quick brown fox")[0].prompt_token_ids[0] == 0


def test_a_quantised_model_is_refused(source, text, tmp_path):
    out = run(source, tmp_path / "out", text, "rtn")
    with pytest.raises(
        ValueError, match=r"quantised already \(compressed-tensors\): start from the original"
    ):
        run(out, tmp_path / "again", text, "rtn")
    assert not (tmp_path / "again").exists() and not (tmp_path / "again.partial").exists()


def test_a_weight_that_is_not_finite_names_its_layer(source, text, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(source, damaged)
    tensors = safetensors.torch.load_file(damaged / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    safetensors.torch.save_file(tensors, damaged / "model.safetensors", {"format": "pt"})
    for method in WRITTEN:
        with pytest.raises(ValueError, match=r"damaged, layer 1: gate_up has a weight that is not finite"):
            run(damaged, tmp_path / method, text, method)
        assert not (tmp_path / method).exists()


MISTAKES = [
    (["--method", "foo"], "method='foo': give one of"),
    (["--method", "rtn", "--bits", "5"], "bits=5: method='rtn' has 4 or 8"),
    (["--method", "awq", "--bits", "3"], "simulated only"),
    (["--method", "rtn", "--group-size", "48"], "group_size=48 does not divide the 64 columns"),
    (["--method", "gptq", "--calibration", "EMPTY"], "has 1 tokens, and one window needs 128"),
    (["--method", "awq", "--calibration", "SHORT"], "tokens, and one window needs 128: use a longer text"),
    (["--method", "awq", "--calibration", "BYTES"], "is not UTF-8"),
    (["--method", "smoothquant", "--calibration", "MISSING"], "cannot read the calibration text"),
    (["--method", "rtn", "--act-order"], "act_order belongs to method='gptq'"),
    (["--method", "rtn", "-o", "TAKEN"], "is there already"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_is_one_line(words, message, source, tmp_path, capsys):
    (tmp_path / "EMPTY").write_text("")
    (tmp_path / "SHORT").write_text("a few words")
    (tmp_path / "BYTES").write_bytes(b"caf\xe9" * 900)
    (tmp_path / "TAKEN").mkdir()
    (tmp_path / "TAKEN" / "config.json").write_text("{}")
    words = [str(tmp_path / word) if word.isupper() else word for word in words]
    out = [] if "-o" in words else ["-o", str(tmp_path / "out")]
    assert main(["quantize", str(source), *words, *out]) == 2
    _, error = capsys.readouterr()
    assert message in error and error.count("\n") == 1 and error.startswith("minillm quantize: ")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_gpt2_is_refused(text, tmp_path, capsys):
    assert main(["quantize", str(sample("gpt2").folder), "--method", "rtn", "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "'gpt2' cannot be quantised into a folder" in error and error.count("\n") == 1


def test_a_model_without_a_tokenizer_needs_no_text_for_rtn(tmp_path, capsys):
    model = str(sample("llama").folder)
    assert main(["quantize", model, "--method", "int8", "-o", str(tmp_path / "out")]) == 0
    assert main(["quantize", model, "--method", "gptq", "-o", str(tmp_path / "other")]) == 2
    assert "the model has no tokenizer" in capsys.readouterr().err


def test_the_command_writes_a_folder_and_says_its_size(source, text, tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        "--method",
        "gptq",
        "--bits",
        "4",
        "--group-size",
        "32",
        "--calibration",
        str(text),
        "-o",
        str(out),
    ]
    assert main(["quantize", str(source), *words]) == 0
    assert "MB of weights" in capsys.readouterr().out
    group = json.loads((out / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]
    assert group["weights"]["num_bits"] == 4 and group["weights"]["group_size"] == 32
    assert files(out) == files(run(source, tmp_path / "same", text, "gptq", group_size=32))


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["quantize", "--help"])
    shown = capsys.readouterr().out
    for word in ("--method", "--bits", "--group-size", "--act-order", "--calibration", "--out", *WRITTEN):
        assert word in shown


def test_the_bundled_calibration_text_is_there():
    stored = open_model(tiny.folder())
    windows = calibration_windows(stored, module.CALIBRATION)
    assert len(windows) == 128 and {len(window) for window in windows} == {tiny.CONTEXT}
