"""Weights from safetensors to the device, each byte read once and no copy of the model kept on the way.

A checkpoint's files are memory-mapped. Tensors go straight from the map into their place in the fused matrix
that the model uses; the map is let go every few megabytes, so that what the operating system has paged in does
not add up to a second model. The largest tensors, embedding and head, are read first, while there is room.
Only safetensors is read: a pickle can run code.
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minillm.config import ModelConfig
from minillm.errors import CheckpointError
from minillm.model.config_keys import read_json
from minillm.model.families import Names, names_of
from minillm.model.linear import Linear, linear_for
from minillm.model.transformer import Block, Norm, Transformer, Weights
from minillm.ops import Ops

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FILE_NAME = re.compile(r"[^/\\\x00-\x1f\ud800-\udfff]{1,200}\.safetensors")
REMAP_AFTER = 16 * 2**20  # bytes read from a map before it is let go
STRIP = 256  # rows that are transposed at a time
STORED = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
BUFFERS = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias")  # in old checkpoints, and not weights


class Checkpoint:
    """The tensors of a model folder by name. Use as a context manager; `get` maps files as needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = _weight_map(folder)  # tensor name -> file name
        self.unread = set(self.files)
        self._open: dict[str, Any] = {}
        self._bytes_since_open = 0

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def get(self, name: str) -> Tensor:
        """A view into the file's memory map, on the CPU, in the stored dtype."""
        if name not in self.files:
            raise CheckpointError(f"{self.folder} has no tensor {name!r}, which its config.json asks for")
        if self._bytes_since_open > REMAP_AFTER:
            self._open.clear()
            self._bytes_since_open = 0
        file = self.files[name]
        if file not in self._open:
            self._open[file] = _map(self.folder / file)
        self.unread.discard(name)
        try:
            tensor: Tensor = self._open[file].get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(
                f"{self.folder / file}: tensor {name!r} cannot be read ({error})"
            ) from error
        if tensor.dtype not in STORED:
            raise CheckpointError(
                f"{self.folder}: tensor {name!r} is stored as {tensor.dtype}, which without its scales means nothing: "
                "load a checkpoint in " + ", ".join(str(d).removeprefix("torch.") for d in STORED)
            )
        self._bytes_since_open += tensor.nbytes
        return tensor


def _map(path: Path) -> Any:
    try:
        size = path.stat().st_size
    except OSError:
        raise CheckpointError(f"{path} does not exist, though {INDEX} names it: download it again") from None
    try:
        if not path.is_file():
            raise OSError("it is not a regular file")
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} ({size:,} bytes) is not a whole safetensors file ({error}): download it again"
        ) from error


def _weight_map(folder: Path) -> dict[str, str]:
    """Return the name of the file that holds each tensor. Raises `CheckpointError` if index and files disagree."""
    index, single = folder / INDEX, folder / SINGLE
    if not index.exists():
        if not single.exists():
            raise _no_weights(folder)
        return dict.fromkeys(_map(single).keys(), SINGLE)
    weight_map = _read_index(index)
    files = {file: set(_map(folder / file).keys()) for file in set(weight_map.values())}
    if single.exists() and SINGLE not in files:
        raise CheckpointError(
            f"{folder} holds {SINGLE}, which {INDEX} does not name: remove the one that is old"
        )
    again = "they are of two checkpoints, or damaged: download both again"
    for name, file in weight_map.items():
        if name not in files[file]:
            raise CheckpointError(f"{folder / file} has no tensor {name!r}, though {INDEX} says so: {again}")
    for file, names in files.items():
        for name in names:
            if weight_map.get(name) != file and not name.endswith(BUFFERS):
                raise CheckpointError(
                    f"{folder / file} has a tensor {name!r}, but {INDEX} says otherwise: {again}"
                )
    return weight_map


def _read_index(path: Path) -> dict[str, str]:
    try:
        weight_map = read_json(path).get("weight_map")
    except CheckpointError as error:
        raise CheckpointError(f"{path} is damaged ({error}): download it again") from error
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{path} is damaged (it has no table 'weight_map'): download it again")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not FILE_NAME.fullmatch(file):
            raise CheckpointError(
                f"{path} is damaged ({name!r} is in {file!r}, no safetensors file): download it again"
            )
    return weight_map


def _no_weights(folder: Path) -> CheckpointError:
    """Return the error for a folder without safetensors: it names what is there and how to convert it."""
    remedy = (
        "once to safetensors: "
        "transformers.AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)"
    )
    patterns = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.bin.index.json")
    if pickles := sorted(p.name for pattern in patterns for p in folder.glob(pattern)):
        return CheckpointError(
            f"{folder} holds only pickle weights ({', '.join(pickles[:3])}), which can run code when read. Convert "
            f"them {remedy}"
        )
    return CheckpointError(
        f"{folder} has neither {SINGLE} nor {INDEX}: no weights to load. Convert weights of another format {remedy}"
    )


def load_model(
    folder: Path,
    config: ModelConfig,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    ops: Ops | None = None,
) -> Transformer:
    """Read a folder's weights onto `device`. Raises `CheckpointError` naming any tensor that is missing, of the
    wrong shape, or present and not part of the model that config.json describes.
    """
    with Checkpoint(folder) as checkpoint:
        weights = _Loader(checkpoint, config, torch.device(device), dtype).weights()
        extra = [n for n in checkpoint.unread if not n.endswith(BUFFERS)]
        if config.tie_word_embeddings:
            extra = [n for n in extra if n != "lm_head.weight"]
        if extra:
            raise CheckpointError(
                f"{folder} holds {len(extra)} tensors that its config.json does not account for, such as "
                f"{sorted(extra)[0]!r}: running without them would be a different model"
            )
    return Transformer(config, weights, ops)


def copy_transposed(target: Tensor, source: Tensor) -> None:
    """target [in, out] = source [out, in], by strips that fit in the processor's cache: twice as fast as at once."""
    for i in range(0, source.shape[0], STRIP):
        target[:, i : i + STRIP].copy_(source[i : i + STRIP].to(target.dtype).t().contiguous())


class _Loader:
    """Takes a checkpoint apart by its family's names and puts it together in the model's layout."""

    def __init__(
        self, checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.checkpoint, self.config, self.device, self.dtype = checkpoint, config, device, dtype
        self.names = names_of(config)
        # A checkpoint saved from the headless model lacks the outer prefix ("model." or "transformer.").
        self.prefix = self.names.embed.split(".")[0] + "."
        self.bare = f"{self.names.embed}.weight" not in checkpoint

    def weights(self) -> Weights:
        c, names = self.config, self.names
        if c.tie_word_embeddings:
            # One memory for both, in the head's order: a step multiplies by all of it and looks up a few rows.
            self.same_as_embedding(names)
            head = self.linear((names.embed,), c.hidden_size, (c.vocab_size,), bias=False, transposed=False)
            embed = head.weight.t()
        else:
            head = self.linear((names.lm_head,), c.hidden_size, (c.vocab_size,), bias=False, transposed=False)
            embed = self.tensor(names.embed + ".weight", (c.vocab_size, c.hidden_size))
        position = None
        if names.position_embed is not None:
            position = self.tensor(
                names.position_embed + ".weight", (c.max_position_embeddings, c.hidden_size)
            )
        blocks = [self.block(i) for i in range(c.num_hidden_layers)]
        final_norm = self.norm(names.final_norm, c.hidden_size)
        return Weights(embed, blocks, final_norm, head, position)

    def same_as_embedding(self, names: Names) -> None:
        """Old checkpoints store a tied head all the same. If it differs, config.json describes another model."""
        head, shape = names.lm_head + ".weight", (self.config.vocab_size, self.config.hidden_size)
        if head in self.checkpoint and not torch.equal(
            self.stored(names.embed + ".weight", shape), self.stored(head, shape)
        ):
            raise CheckpointError(
                f"{self.checkpoint.folder}: tie_word_embeddings is true, but {head!r} differs from the embedding: "
                "set it to false in config.json"
            )

    def block(self, i: int) -> Block:
        c, names, t = self.config, self.names, self.names.transposed

        def linear(parts: tuple[str, ...], size_in: int, sizes_out: tuple[int, ...], bias: bool) -> Linear:
            return self.linear(tuple(p.format(i=i) for p in parts), size_in, sizes_out, bias, t)

        def norm(name: str | None, size: int) -> Norm | None:
            return None if name is None else self.norm(name.format(i=i), size)

        qkv_out = (c.q_size, c.kv_size, c.kv_size) if len(names.qkv) == 3 else (c.q_size + 2 * c.kv_size,)
        return Block(
            input_norm=self.norm(names.input_norm.format(i=i), c.hidden_size),
            qkv=linear(names.qkv, c.hidden_size, qkv_out, c.qkv_bias),
            o=linear((names.o,), c.q_size, (c.hidden_size,), c.o_bias),
            post_norm=self.norm(names.post_norm.format(i=i), c.hidden_size),
            up=linear(names.up, c.hidden_size, (c.intermediate_size,) * len(names.up), c.mlp_bias),
            down=linear((names.down,), c.intermediate_size, (c.hidden_size,), c.mlp_bias),
            q_norm=norm(names.q_norm, c.head_dim) if c.qk_norm else None,
            k_norm=norm(names.k_norm, c.head_dim) if c.qk_norm else None,
        )

    def linear(
        self, names: tuple[str, ...], size_in: int, sizes_out: tuple[int, ...], bias: bool, transposed: bool
    ) -> Linear:
        """Several matrices side by side in one. On a CPU memory runs along `out`: a lone token's product then
        streams whole rows, 10-30 % faster; a GPU's library wants it along `in`."""
        shapes = [(size_in, size) if transposed else (size, size_in) for size in sizes_out]
        parts = [self.stored(f"{n}.weight", shape) for n, shape in zip(names, shapes, strict=True)]
        on_cpu, total = self.device.type == "cpu", sum(sizes_out)
        shape = (size_in, total) if on_cpu else (total, size_in)
        memory = torch.empty(shape, dtype=self.dtype, device=self.device)
        weight = memory if on_cpu else memory.t()  # [in, out] either way
        biases = torch.empty(total, dtype=self.dtype, device=self.device) if bias else None
        start = 0
        for name, size, part in zip(names, sizes_out, parts, strict=True):
            target = weight[:, start : start + size]
            if transposed or not on_cpu:
                target.copy_(part if transposed else part.t())
            else:
                copy_transposed(target, part)
            if biases is not None:
                biases[start : start + size].copy_(self.stored(f"{name}.bias", (size,)))
            start += size
        return linear_for(weight, biases)

    def norm(self, name: str, size: int) -> Norm:
        bias = self.tensor(name + ".bias", (size,)) if self.config.norm == "layer_norm" else None
        return Norm(self.tensor(name + ".weight", (size,)), bias)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        stored = self.stored(name, shape)  # first: an absurd shape is refused before memory is asked for
        return torch.empty(shape, dtype=self.dtype, device=self.device).copy_(stored)

    def stored(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The file's own tensor, of the shape that config.json implies."""
        if self.bare:
            name = name.removeprefix(self.prefix)
        tensor = self.checkpoint.get(name)
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{self.checkpoint.folder}: tensor {name!r} is {list(tensor.shape)}, config.json implies {list(shape)}"
            )
        return tensor
