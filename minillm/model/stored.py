"""A model on disk, whatever its format: a folder as the Hugging Face hub has it, or one GGUF file.

Everything above this file asks a `StoredModel` for the same four parts and does not know the format.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch

from minillm import store
from minillm.config import ModelConfig
from minillm.errors import CheckpointError
from minillm.model.checkpoint import INDEX, SINGLE, Checkpoint, Tensors, build_model, load_model
from minillm.model.config_keys import read_json
from minillm.model.families import (
    GenerationConfig,
    config_from_dict,
    generation_from_dict,
    read_config,
    read_generation_config,
    read_quantization_config,
)
from minillm.model.schemes import Scheme
from minillm.model.tokenizer import Tokenizer, load_tokenizer
from minillm.model.transformer import Transformer
from minillm.ops import Ops

GGUF, CONFIG = ".gguf", "config.json"


class StoredModel(Protocol):
    """The parts of a model on disk. Each may raise `CheckpointError`.

    `config` is the model in numbers, `generation` is how its authors recommend to sample, and `quantization_config` is
    how config.json says that its weights are quantised, or None.
    """

    config: ModelConfig
    generation: GenerationConfig
    quantization_config: Mapping[str, Any] | None

    def tensors(self) -> AbstractContextManager[Tensors]:
        """Return the tensors, which are read one by one inside the `with`."""
        ...

    def weights(
        self,
        device: torch.device,
        dtype: torch.dtype,
        ops: Ops | None = None,
        scheme: Scheme | None = None,
    ) -> Transformer:
        """Return the model with its weights on `device`, and its projections as `scheme` (`Dense`) loads them."""
        ...

    def tokenizer(self) -> Tokenizer | None:
        """Return the tokenizer, or None if the model has none and takes only token ids."""
        ...

    def config_json(self) -> dict[str, Any]:
        """Return the content of the model's config.json, as a copy of the model needs it."""
        ...

    def copy_companions(self, folder: Path) -> None:
        """Write the model's tokenizer and generation_config.json into a folder, as far as it has them."""
        ...


# Files that a copy of a model in other numbers needs too: the tokenizer, the chat template, how to sample.
COMPANIONS = ("*.json", "*.model", "*.txt", "*.jinja")
# The class in `transformers` for a model_type: a GGUF file does not name it.
CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}


class HubFolder:
    """A folder with config.json, safetensors and a tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, read_config(folder)
        self.quantization_config = read_quantization_config(folder)
        self.generation = read_generation_config(folder)

    def tensors(self) -> Checkpoint:
        return Checkpoint(self.folder)

    def weights(
        self,
        device: torch.device,
        dtype: torch.dtype,
        ops: Ops | None = None,
        scheme: Scheme | None = None,
    ) -> Transformer:
        return load_model(self.folder, self.config, device, dtype, ops, scheme)

    def tokenizer(self) -> Tokenizer | None:
        return load_tokenizer(self.folder)

    def config_json(self) -> dict[str, Any]:
        return read_json(self.folder / CONFIG)

    def copy_companions(self, folder: Path) -> None:
        files = {file for pattern in COMPANIONS for file in self.folder.glob(pattern)}
        for file in sorted(files - {self.folder / CONFIG, self.folder / INDEX}):
            shutil.copyfile(file, folder / file.name)


class GgufModel:
    """One GGUF file. How its weights are stored is written at each tensor."""

    quantization_config: Mapping[str, Any] | None = MappingProxyType({"quant_method": "gguf"})

    def __init__(self, path: Path) -> None:
        from minillm.model.gguf import GgufFile
        from minillm.model.gguf_model import config_keys, generation_keys, rope_factors

        self.file = GgufFile(path)
        self.config = config_from_dict(config_keys(self.file), source=str(path))
        factors = rope_factors(self.file, self.config.head_dim)
        if factors and self.config.rope is not None:
            if self.config.rope.type != "default":
                raise CheckpointError(
                    f"{path} stretches RoPE twice, by {self.config.rope.type!r} and by a table: use another file"
                )
            stretched = replace(self.config.rope, type="factors", factors=factors)
            self.config = replace(self.config, rope=stretched)
        self.generation = generation_from_dict(generation_keys(self.file), str(path))

    def tensors(self) -> AbstractContextManager[Tensors]:
        from minillm.model.gguf_model import GgufTensors

        return nullcontext(GgufTensors(self.file, self.config))

    def weights(
        self,
        device: torch.device,
        dtype: torch.dtype,
        ops: Ops | None = None,
        scheme: Scheme | None = None,
    ) -> Transformer:
        with self.tensors() as tensors:
            return build_model(tensors, self.config, device, dtype, ops, scheme)

    def tokenizer(self) -> Tokenizer | None:
        from minillm.model.gguf_tokenizer import read_tokenizer

        return read_tokenizer(self.file)

    def config_json(self) -> dict[str, Any]:
        from minillm.model.gguf_model import config_keys

        if self.config.rope is not None and self.config.rope.factors:
            raise CheckpointError(
                f"{self.file.path} stretches RoPE by a table, and config.json has no place for one: start from the "
                "model's safetensors"
            )
        return {"architectures": [f"{CLASSES[self.config.family]}ForCausalLM"], **config_keys(self.file)}

    def copy_companions(self, folder: Path) -> None:
        from minillm.model.gguf_model import generation_keys

        tokenizer = self.tokenizer()
        if tokenizer is not None:
            tokenizer.wrapped.save_pretrained(folder)
        store.write(folder / "generation_config.json", json.dumps(generation_keys(self.file), indent=2))


def open_model(path: Path) -> StoredModel:
    """Return the model in a folder, or in a GGUF file. A folder's safetensors win over a GGUF file next to them.

    Raises `CheckpointError` if neither is there, and for a folder with several GGUF files.
    """
    if not path.is_dir():
        return GgufModel(path)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == GGUF)
    if not files or (path / SINGLE).exists() or (path / INDEX).exists():
        return HubFolder(path)
    if len(files) > 1:
        raise CheckpointError(
            f"{path} holds {len(files)} GGUF files ({', '.join(file.name for file in files[:4])}): give the path of one"
        )
    return GgufModel(files[0])
