"""A model of four shards, for a process that is killed while it writes them."""

import os
import signal
from pathlib import Path

import torch

from minillm.quantization.export import FolderWriter

CONFIG = {"model_type": "llama"}
SHARDS = {f"layer-{i:05d}": {f"x.{i}": torch.full((3,), float(i))} for i in range(4)}


def write(out: Path, stop_after: int | None = None) -> None:
    writer = FolderWriter(out, CONFIG, {"bits": 4}, {"method": "rtn"})
    for i, (name, tensors) in enumerate(SHARDS.items()):
        if i == stop_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if name not in writer.done:
            writer.add(name, tensors)
    writer.finish()
