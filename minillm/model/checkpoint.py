"""Weights from safetensors to the device, each byte read once and no copy of the model kept on the way.

A checkpoint's files are memory-mapped. Tensors go straight from the map into their place in the fused matrix
that the model uses; the map is let go every few megabytes, so that what the operating system has paged in does
not add up to a second model. The largest tensors, embedding and head, are read first, while there is room.
Only safetensors is read: a pickle can run code.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minillm.config import ModelConfig
from minillm.errors import CheckpointError
from minillm.model.config_keys import read_json
from minillm.model.embedding import Embedding
from minillm.model.families import FAMILIES
from minillm.model.linear import Projection
from minillm.model.mlp import ACTIVATIONS, DenseMlp
from minillm.model.schemes import Dense, Parts, Scheme
from minillm.model.transformer import Block, Norm, Transformer, Weights
from minillm.ops import Ops

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FILE_NAME = re.compile(r"[^/\\\x00-\x1f\ud800-\udfff]{1,200}\.safetensors")
REMAP_AFTER = 16 * 2**20  # bytes read from a map before it is let go
BUFFERS = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias")  # in old checkpoints, and not weights


class Tensors(Protocol):
    """The tensors of a model on disk, in any format, under the names of a Hugging Face folder.

    `names` are all tensors, and `unread` those that `get` has not returned so far. `path`, and `settings` (where the
    model is described), are for messages.
    """

    @property
    def path(self) -> Path: ...
    @property
    def settings(self) -> str: ...
    @property
    def names(self) -> Collection[str]: ...
    @property
    def unread(self) -> Collection[str]: ...

    def get(self, name: str) -> Tensor:
        """Return a tensor on the CPU. Raise CheckpointError if there is none of this name."""
        ...


class Checkpoint:
    """The tensors of a model folder by name. Use as a context manager; `get` maps files as needed."""

    settings = "config.json"

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.files = _weight_map(folder)  # tensor name -> file name
        self.names = self.files.keys()
        self.unread = set(self.files)
        self._open: dict[str, Any] = {}
        self._bytes_since_open = 0

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()

    def get(self, name: str) -> Tensor:
        """Return a view into the file's memory map, on the CPU, in the stored dtype."""
        if name not in self.files:
            raise CheckpointError(f"{self.path} has no tensor {name!r}, which its config.json asks for")
        if self._bytes_since_open > REMAP_AFTER:
            self._open.clear()
            self._bytes_since_open = 0
        file = self.files[name]
        if file not in self._open:
            self._open[file] = _map(self.path / file)
        self.unread.discard(name)
        try:
            tensor: Tensor = self._open[file].get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{self.path / file}: tensor {name!r} cannot be read ({error})") from error
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
    scheme: Scheme | None = None,
) -> Transformer:
    """Return the model of a folder; see `build_model`."""
    with Checkpoint(folder) as checkpoint:
        return build_model(checkpoint, config, device, dtype, ops, scheme)


def build_model(
    tensors: Tensors,
    config: ModelConfig,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    ops: Ops | None = None,
    scheme: Scheme | None = None,
) -> Transformer:
    """Return a model with its weights on `device` and its projections as `scheme` (`Dense`) loads them.

    Raises `CheckpointError` naming any tensor that is missing, has the wrong shape or dtype, or is not part of the
    model that `config` describes.
    """
    loader = Loader(tensors, config, torch.device(device), dtype, scheme or Dense())
    weights = loader.weights()
    loader.refuse_unread()
    return Transformer(config, weights, ops)


class Loader:
    """Read a checkpoint by its family's names into the model's layout, at once or block by block.

    It is the `Source` of the scheme. `config` describes the whole model as the checkpoint stores it: every shape is
    compared with it.
    """

    def __init__(
        self,
        checkpoint: Tensors,
        config: ModelConfig,
        device: torch.device,
        dtype: torch.dtype,
        scheme: Scheme,
    ) -> None:
        self.checkpoint, self.config, self.device, self.dtype = checkpoint, config, device, dtype
        self.scheme, self.names = scheme, FAMILIES[config.family].names
        # A checkpoint saved from the headless model lacks the outer prefix ("model." or "transformer.").
        outer = self.names.embed.split(".")[0] + "."
        self.prefix = "" if any(name.startswith(outer) for name in checkpoint.names) else outer
        self._suffixes = defaultdict[str, set[str]](set)
        for name in checkpoint.names:
            module, _, suffix = name.rpartition(".")
            self._suffixes[module].add(suffix)

    def weights(self) -> Weights:
        """Read all tensors of the model."""
        outer = self.outer()
        return replace(outer, blocks=[self.block(i) for i in range(self.config.num_hidden_layers)])

    def outer(self) -> Weights:
        """Read the tensors outside the blocks; `blocks` is empty."""
        c, names = self.config, self.names
        if c.tie_word_embeddings:
            self._check_stored_head()
            # One memory for both, in the head's order: a step multiplies by all of it and looks up a few rows. The
            # embedding needs the floating-point matrix, so a tied head has it whatever the scheme.
            tied = Dense().load(self, Parts((names.embed,), c.hidden_size, (c.vocab_size,)))
            head: Projection = tied
            embed = Embedding(tied.weight.t())
        else:
            head = self.scheme.load(self, Parts((names.lm_head,), c.hidden_size, (c.vocab_size,)))
            embed = self._embedding(names.embed, c.vocab_size)
        position_embed = None
        if names.position_embed is not None:
            position_embed = self._embedding(names.position_embed, c.max_position_embeddings)
        return Weights(embed, [], self.norm(names.final_norm, c.hidden_size), head, position_embed)

    def refuse_unread(self) -> None:
        """Raise `CheckpointError` for a tensor that was not read: without it the model would be another one."""
        extra = [n for n in self.checkpoint.unread if not n.endswith(BUFFERS)]
        if self.config.tie_word_embeddings:
            extra = [n for n in extra if n != "lm_head.weight"]
        if extra:
            raise CheckpointError(
                f"{self.checkpoint.path} holds {len(extra)} tensors that its {self.checkpoint.settings} does not "
                f"account for, such as {sorted(extra)[0]!r}: running without them would be a different model"
            )

    def stored(self, name: str, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]) -> Tensor:
        """Return the file's own tensor. Raise CheckpointError if it is missing or has another shape or dtype."""
        name = name.removeprefix(self.prefix)
        tensor = self.checkpoint.get(name)
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor {name!r} is {list(tensor.shape)}, "
                f"{self.checkpoint.settings} implies {list(shape)}"
            )
        if tensor.dtype not in dtypes:
            raise CheckpointError(
                f"{self.checkpoint.path}: tensor {name!r} is stored as {tensor.dtype}, which needs a scheme that is "
                "not implemented. Load a checkpoint in "
                + ", ".join(str(d).removeprefix("torch.") for d in dtypes)
            )
        return tensor

    def suffixes(self, name: str) -> set[str]:
        """Return each X of the checkpoint's tensors `name.X`."""
        return self._suffixes[name.removeprefix(self.prefix)]

    def _check_stored_head(self) -> None:
        """Refuse a stored head that differs from the embedding it is tied to. Old checkpoints store an equal one."""
        head, shape = self.names.lm_head + ".weight", (self.config.vocab_size, self.config.hidden_size)
        if head in self.checkpoint.names and not torch.equal(
            self.stored(self.names.embed + ".weight", shape, Dense.dtypes),
            self.stored(head, shape, Dense.dtypes),
        ):
            raise CheckpointError(
                f"{self.checkpoint.path}: tie_word_embeddings is true, but {head!r} differs from the embedding: "
                "set it to false in config.json"
            )

    def block(self, i: int) -> Block:
        """Read the tensors of layer i."""
        c, names = self.config, self.names

        def projection(
            parts: tuple[str, ...], size_in: int, sizes_out: tuple[int, ...], bias: bool
        ) -> Projection:
            formatted = tuple(part.format(i=i) for part in parts)
            return self.scheme.load(self, Parts(formatted, size_in, sizes_out, bias, names.transposed))

        def norm(name: str | None, size: int) -> Norm | None:
            return None if name is None else self.norm(name.format(i=i), size)

        qkv_out = (c.q_size, c.kv_size, c.kv_size) if len(names.qkv) == 3 else (c.q_size + 2 * c.kv_size,)
        gate_up_out = (c.intermediate_size,) * len(names.gate_up)
        return Block(
            attention_norm=self.norm(names.attention_norm.format(i=i), c.hidden_size),
            qkv=projection(names.qkv, c.hidden_size, qkv_out, c.qkv_bias),
            o=projection((names.o,), c.q_size, (c.hidden_size,), c.o_bias),
            mlp_norm=self.norm(names.mlp_norm.format(i=i), c.hidden_size),
            mlp=DenseMlp(
                gate_up=projection(names.gate_up, c.hidden_size, gate_up_out, c.mlp_bias),
                down=projection((names.down,), c.intermediate_size, (c.hidden_size,), c.mlp_bias),
                activation=None if c.gated_mlp else ACTIVATIONS[c.activation],
            ),
            q_norm=norm(names.q_norm, c.head_dim) if c.qk_norm else None,
            k_norm=norm(names.k_norm, c.head_dim) if c.qk_norm else None,
        )

    def norm(self, name: str, size: int) -> Norm:
        bias = self.tensor(name + ".bias", (size,)) if self.config.norm == "layer_norm" else None
        return Norm(self.tensor(name + ".weight", (size,)), bias)

    def _embedding(self, name: str, num_entries: int) -> Embedding:
        return Embedding(self.tensor(name + ".weight", (num_entries, self.config.hidden_size)))

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        stored = self.stored(
            name, shape, Dense.dtypes
        )  # an absurd shape is refused before memory is reserved
        return torch.empty(shape, dtype=self.dtype, device=self.device).copy_(stored)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file that others may read if the umask allows it, as any new file."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata={"format": "pt"})  # alone, it makes files for their owner only
    path.chmod(mode)
