"""Quantise models with llm-compressor: `python llm_compressor.py REQUEST.json`.

The request has `model`, a folder, and `jobs`. A job has `method`, a name in METHODS, `windows`, the calibration text in
tokens (empty for methods that need none), and `out`. The folder `out` gets the compressed model, and then
`finished.json` with the CPU seconds, so that a job that has this file is never run again.

Formats that minillm does not load (4-bit floats) are written as floats of the values that they stand for.
This file runs in llm-compressor's own environment.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.quantization import forward_quantize
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from llmcompressor.pipelines.cache import IntermediatesCache

FLOATS = ("nvfp4", "mxfp4")  # written as floats


def nearest(scheme: str) -> QuantizationModifier:
    """Return the modifier that rounds every projection but the head to nearest."""
    return QuantizationModifier(targets="Linear", scheme=scheme, ignore=["lm_head"])


def gptq(order: str | None) -> GPTQModifier:
    return GPTQModifier(targets="Linear", scheme="W4A16", ignore=["lm_head"], actorder=order)


METHODS: dict[str, Callable[[], list[Any]]] = {
    "int4": lambda: [nearest("W4A16")],
    "int8": lambda: [nearest("W8A16")],
    "w8a8": lambda: [nearest("W8A8")],
    "fp8": lambda: [nearest("FP8_DYNAMIC")],
    "nvfp4": lambda: [nearest("NVFP4A16")],
    "mxfp4": lambda: [nearest("MXFP4A16")],
    "gptq": lambda: [gptq(None)],
    "gptq-act-order": lambda: [gptq("static")],
    "awq": lambda: [AWQModifier(), nearest("W4A16")],
    "smoothquant": lambda: [SmoothQuantModifier(), nearest("W8A8")],
}


def without_pinning() -> None:
    """Let AWQ run without an accelerator: release 0.14.0.1 pins memory for one, and fails if there is none."""
    if not torch.accelerator.is_available():
        IntermediatesCache.pin_memory = lambda *_: None


def batches(windows: list[list[int]]) -> Any:
    """Return a loader with one window per batch, or None without windows."""
    texts = [
        {"input_ids": torch.tensor([window]), "attention_mask": torch.ones(1, len(window)).long()}
        for window in windows
    ]
    return torch.utils.data.DataLoader(texts, batch_size=None) if texts else None


def with_rounded_floats(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the model's tensors, with those of quantised projections as the values that they stand for."""
    tensors = dict(model.state_dict())
    for name, module in model.named_modules():
        if hasattr(module, "quantization_scheme"):
            weight, scheme = module.weight.data, module.quantization_scheme.weights
            tensors[f"{name}.weight"] = forward_quantize(module, weight, "weight", scheme)
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("_scale")}


def run(model: str, job: dict[str, Any]) -> None:
    """Quantise one model and write it."""
    out = Path(job["out"])
    began = time.process_time()
    quantised = oneshot(model=model, recipe=METHODS[job["method"]](), dataset=batches(job["windows"]))
    seconds = time.process_time() - began
    if job["method"] in FLOATS:
        out.mkdir(parents=True, exist_ok=True)
        torch.save(with_rounded_floats(quantised), out / "floats.pt")
    else:
        quantised.save_pretrained(out, save_compressed=True)
    (out / "finished.json").write_text(json.dumps({"cpu_seconds": seconds}))


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    without_pinning()
    for job in request["jobs"]:
        if not Path(job["out"], "finished.json").exists():
            run(request["model"], job)


if __name__ == "__main__":
    main()
