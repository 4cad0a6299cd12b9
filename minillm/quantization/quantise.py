"""Quantise a model on disk, layer by layer, into a folder that `LLM`, `transformers` and vLLM load.

One layer is in floats at a time. A method that looks at activations takes the calibration text to this layer, quantises
it, writes it, and takes the text on to the next one. A run that was stopped finds its finished layers, takes the text
through them, and continues. It writes the same bytes as a run without a stop, on equally many threads.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minillm.config import ModelConfig
from minillm.errors import CheckpointError
from minillm.model.checkpoint import Loader
from minillm.model.embedding import Embedding
from minillm.model.families import FAMILIES
from minillm.model.linear import Linear
from minillm.model.schemes import Dense
from minillm.model.stored import StoredModel
from minillm.model.transformer import Block, Norm, Transformer, Weights
from minillm.quantization.absmax import PER_CHANNEL
from minillm.quantization.calibration import Stream
from minillm.quantization.export import (
    FolderWriter,
    Layout,
    block_tensors,
    outer_tensors,
    quantization_config,
)
from minillm.quantization.formats.gguf import GGUF
from minillm.quantization.methods import Recipe
from minillm.quantization.rounding import floats, replaced
from minillm.quantization.schemes import scheme_for

WINDOW, NUM_WINDOWS = 256, 128  # tokens of a window of the calibration text, and the most windows of it
CALIBRATION = Path(__file__).parents[1] / "models" / "heldout" / "calibration.txt"
CPU = torch.device("cpu")


def quantise(
    stored: StoredModel,
    out: Path,
    method: str,
    bits: int | None = None,
    group_size: int | None = None,
    *,
    calibration: Path = CALIBRATION,
    act_order: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the model of `stored`, quantised, as the folder `out`, and call `progress(layers done, layers)`.

    `method`, `bits` and `group_size` are as in `Recipe.of`. Until all is written, the layers are in OUT.partial. The
    head and the embedding stay floats. Raises `ValueError` for settings that do not fit the model, for a calibration
    text that is too short, and if `out` is there; `CheckpointError` for a model that cannot be quantised.
    """
    config = _quantisable(stored)
    recipe = Recipe.of(config, method, bits, group_size, act_order, packed=True)
    windows = calibration_windows(stored, calibration) if recipe.method.from_text is not None else []
    settings: dict[str, Any] = {
        "method": method,
        "act_order": act_order,
        "calibration": hashlib.sha256(repr(windows).encode()).hexdigest(),
    }
    with stored.tensors() as tensors, torch.inference_mode():
        settings["weights"] = _version(tensors.path)
        writer = FolderWriter(out, stored.config_json(), _quantization_config(config, recipe), settings)
        loader = Loader(tensors, config, CPU, recipe.dtype, Dense())
        outer = loader.outer()
        writer.add("outer", outer_tensors(config, outer))
        stream = _start(config, outer, windows) if windows else None
        del outer
        for layer in range(config.num_hidden_layers):
            progress(layer, config.num_hidden_layers)
            stream = _quantise_layer(loader, layer, recipe, stream, writer)
        loader.refuse_unread()
    stored.copy_companions(writer.folder)
    writer.finish()
    progress(config.num_hidden_layers, config.num_hidden_layers)


def calibration_windows(stored: StoredModel, text: Path) -> list[list[int]]:
    """Return windows of up to 256 tokens of a text in UTF-8: 128 of them, evenly spread, or all if it has fewer.

    Raises `ValueError` for a text that cannot be read, or without one full window, and `CheckpointError` for a model
    without a tokenizer.
    """
    tokenizer = stored.tokenizer()
    if tokenizer is None:
        raise CheckpointError(
            "the model has no tokenizer to read the calibration text: add one to its folder"
        )
    try:
        ids = tokenizer.encode(text.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{text} is not UTF-8 ({error.reason} at byte {error.start}): convert it") from error
    except OSError as error:
        raise ValueError(f"cannot read the calibration text {text}: {error.strerror}") from error
    size = min(WINDOW, stored.config.max_position_embeddings)
    starts = range(0, len(ids) - size + 1, size)
    if not starts:
        raise ValueError(
            f"the calibration text {text} has {len(ids)} tokens, and one window needs {size}: use a longer text"
        )
    count = min(NUM_WINDOWS, len(starts))
    return [ids[start : start + size] for start in (starts[i * len(starts) // count] for i in range(count))]


def _quantise_layer(
    loader: Loader, layer: int, recipe: Recipe, stream: Stream | None, writer: FolderWriter
) -> Stream | None:
    """Quantise one layer and write it, if that is not done yet. Return the stream after it."""
    name = f"layer-{layer:05d}"
    try:
        block = _block_in_float32(loader.block(layer))
        if name in writer.done:
            again = _read_back(loader, layer, writer) if recipe.method.sequential else block
            return stream if stream is None else stream.after(again)
        quantised, after = recipe.apply(stream, block)
    except ValueError as error:
        raise CheckpointError(f"{loader.checkpoint.path}, layer {layer}: {error}") from error
    writer.add(name, block_tensors(loader.config, layer, quantised))
    return after


def _read_back(loader: Loader, layer: int, writer: FolderWriter) -> Block:
    """Return a finished layer with its weights packed, as the writer has it."""
    shard = _Shard(writer.folder, writer.read(f"layer-{layer:05d}"))
    return Loader(
        shard, loader.config, CPU, torch.float32, scheme_for(writer.quantization_config, None)
    ).block(layer)


class _Shard:
    """The tensors of one shard, as `Loader` reads them."""

    settings = "config.json"

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        self.path, self.tensors = path, tensors
        self.names, self.unread = tensors.keys(), set(tensors)

    def get(self, name: str) -> Tensor:
        return self.tensors[name]


def _start(config: ModelConfig, outer: Weights, windows: Sequence[Sequence[int]]) -> Stream:
    """Return the embeddings of the windows in float32, on a model that keeps neither embedding nor head."""
    embedded = Stream.of(Transformer(config, outer), windows)
    nothing = torch.empty(0, 0)
    body = Weights(Embedding(nothing), [], _norm_in_float32(outer.final_norm), Linear(nothing))
    return replace(embedded, model=Transformer(config, body), residual=embedded.residual.float())


def _block_in_float32(block: Block) -> Block:
    """Return a block of floats with the same values in float32."""
    linears = {role: Linear(one.weight.float(), _float32(one.bias)) for role, one in floats(block).items()}
    return replace(
        replaced(block, linears),
        attention_norm=_norm_in_float32(block.attention_norm),
        mlp_norm=_norm_in_float32(block.mlp_norm),
        q_norm=None if block.q_norm is None else _norm_in_float32(block.q_norm),
        k_norm=None if block.k_norm is None else _norm_in_float32(block.k_norm),
    )


def _norm_in_float32(norm: Norm) -> Norm:
    return Norm(norm.weight.float(), _float32(norm.bias))


def _float32(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float()


def _version(path: Path) -> list[list[str | int]]:
    """Return name, size and time of each file of weights, so that a run does not continue with other weights."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _quantisable(stored: StoredModel) -> ModelConfig:
    """Return the config of a model in floats. Raises `CheckpointError` for others."""
    known = stored.quantization_config
    if known is not None and known.get("quant_method") != GGUF:
        raise CheckpointError(
            f"the model is quantised already ({known.get('quant_method')}): start from the original one"
        )
    if FAMILIES[stored.config.family].names.transposed:
        raise CheckpointError(
            f"models of family {stored.config.family!r} cannot be quantised into a folder: the format is for Linear "
            "layers, and theirs are Conv1D. Quantise on the fly instead: LLM(..., quantization=...)"
        )
    return stored.config


def _quantization_config(config: ModelConfig, recipe: Recipe) -> dict[str, Any]:
    """Return the quantization_config of the folder: every projection but the head has the same layout."""
    names = FAMILIES[config.family].names
    layout = Layout(
        recipe.method.kinds[recipe.bits], None if recipe.group_size == PER_CHANNEL else recipe.group_size
    )
    parts = (*names.qkv, names.o, *names.gate_up, names.down)
    layers = range(config.num_hidden_layers)
    return quantization_config(
        {names.lm_head: None} | {part.format(i=layer): layout for layer in layers for part in parts}
    )
