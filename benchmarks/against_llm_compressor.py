"""Every method next to llm-compressor's, on the same calibration texts: which moves the model less, and in what time?

    OMP_NUM_THREADS=1 python benchmarks/against_llm_compressor.py --python .peers/llm-compressor-0.14.0.1/bin/python

KL is KL(float32 || quantised) in nats per token, on held-out texts that no method saw, and one evaluation serves both
sides. The ratio is ours / theirs: below 1, ours is better. Its interval is the middle 95 % of a paired bootstrap over
the texts (Efron 1979). A method that looks at activations gets several draws of calibration windows, and its KL is the
mean over them. CPU seconds are those of quantising alone, in processes that take turns.

Both sides quantise a copy of the model in float32, so that they compute with the same precision. With
`--dtype bfloat16` llm-compressor computes in bfloat16, and ours in float32.

Each result is written as soon as it is measured. The same command continues where a stopped one ended.
"""

import argparse
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _rows import paired_ratio
from safetensors.torch import load_file, save_file
from torch import Tensor

from minillm.llm import BUNDLED, model_folder
from minillm.measure.timing import device_name
from minillm.model.linear import Linear
from minillm.model.stored import open_model
from minillm.model.transformer import Transformer
from minillm.quantization.compare import Comparison, compare
from minillm.quantization.methods import simulate
from minillm.quantization.quantise import CALIBRATION, WINDOW
from minillm.quantization.schemes import scheme_for

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / "tests" / "peers" / "llm_compressor.py"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Method:
    """The arguments of `simulate` for a method of llm_compressor.py, and whether it looks at activations."""

    name: str
    bits: int | None = None
    group_size: int | None = None
    act_order: bool = False
    calibrated: bool = False


METHODS = {
    "int8": Method("rtn", 8, 128),
    "int4": Method("rtn", 4, 128),
    "w8a8": Method("w8a8"),
    "fp8": Method("fp8"),
    "nvfp4": Method("nvfp4"),
    "mxfp4": Method("mxfp4"),
    "smoothquant": Method("smoothquant", calibrated=True),
    "gptq": Method("gptq", 4, 128, calibrated=True),
    "gptq-act-order": Method("gptq", 4, 128, act_order=True, calibrated=True),
    "awq": Method("awq", 4, 128, calibrated=True),
}


def draws_of(tokens: list[int], draws: int, windows: int) -> list[list[list[int]]]:
    """Return `draws` calibration texts, each of `windows` windows that begin anywhere in `tokens`."""
    generator = torch.Generator().manual_seed(0)
    starts = torch.randint(len(tokens) - WINDOW, (draws, windows), generator=generator).tolist()
    return [[tokens[start : start + WINDOW] for start in row] for row in starts]


def held_out(encode: Callable[[str], list[int]], windows: int) -> list[list[int]]:
    """Return up to `windows` windows of the held-out texts, equally many of each."""
    found = []
    for name in ("stories", "tales"):
        ids = encode((BUNDLED / "heldout" / f"{name}.txt").read_text(encoding="utf-8"))
        found += [ids[i : i + WINDOW] for i in range(0, len(ids) - WINDOW + 1, WINDOW)][: windows // 2]
    return found


def copied(model: Path, dtype: torch.dtype, work: Path) -> Path:
    """Return a copy of a model's folder with all weights in this dtype."""
    out = work / f"{model.name}-{dtype}"
    stored = open_model(model)
    if not (out / "model.safetensors").exists():
        out.mkdir()
        stored.copy_companions(out)
        config = stored.config_json() | {"dtype": str(dtype).removeprefix("torch.")}
        (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
        weights = load_file(model / "model.safetensors")
        save_file(
            {name: tensor.to(dtype) for name, tensor in weights.items()},
            out / "model.safetensors",
            {"format": "pt"},
        )
    return out


class Ours:
    """Quantise with minillm, in this process."""

    def __init__(self, model: Transformer) -> None:
        self.model = model

    def quantised(self, name: str, windows: list[list[int]]) -> tuple[Transformer, float]:
        """Return the quantised model, and the CPU seconds that it took."""
        method = METHODS[name]
        began = time.process_time()
        found = simulate(
            self.model, method.name, method.bits, method.group_size, windows, act_order=method.act_order
        )
        return found, time.process_time() - began


class Theirs:
    """Quantise with llm-compressor in a process of its environment, and load the folder that it writes."""

    def __init__(self, python: Path, folder: Path, model: Transformer, work: Path) -> None:
        self.python, self.folder, self.model, self.work = python, folder, model, work

    def quantised(self, name: str, windows: list[list[int]]) -> tuple[Transformer, float]:
        """Return the quantised model, and the CPU seconds that it took."""
        out = self.work / f"{name}-{digest([self.folder.name, windows])}"
        finished = out / "finished.json"
        if not finished.exists():
            request = self.work / "request.json"
            job = {"method": name, "windows": windows, "out": str(out)}
            request.write_text(json.dumps({"model": str(self.folder), "jobs": [job]}))
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
            done = subprocess.run(
                [self.python, PEER, request], env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"llm-compressor failed with {name}:\n{done.stderr[-3000:]}")
        floats = out / "floats.pt"
        loaded = self._with_floats(torch.load(floats)) if floats.exists() else loaded_as_stored(out)
        return loaded, json.loads(finished.read_text())["cpu_seconds"]

    def _with_floats(self, tensors: dict[str, Tensor]) -> Transformer:
        """Return the model with weights that llm-compressor wrote as floats, under the names of a Llama."""

        def matrix(layer: int, parts: str) -> Linear:
            names = [f"model.layers.{layer}.{part}_proj.weight" for part in parts.split()]
            return Linear(torch.cat([tensors[name].float() for name in names]).t(), None)

        parts = {
            "qkv": "self_attn.q self_attn.k self_attn.v",
            "o": "self_attn.o",
            "gate_up": "mlp.gate mlp.up",
            "down": "mlp.down",
        }
        return self.model.with_blocks(
            lambda layer, block: block.with_projections(lambda role, _: matrix(layer, parts[role]))
        )


def loaded_as_stored(folder: Path) -> Transformer:
    """Return the model of a quantised folder with its weights packed."""
    stored = open_model(folder)
    return stored.weights(CPU, torch.float32, scheme=scheme_for(stored.quantization_config, None))


def digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def sources() -> str:
    """Return a digest of our methods, so that a run does not continue with results of other code."""
    files = sorted((ROOT / "minillm" / "quantization").glob("*.py"))
    return digest([file.read_text(encoding="utf-8") for file in files])


def measured(
    side: Ours | Theirs, name: str, windows: list[list[int]], reference: Transformer, texts: Any
) -> dict[str, Any]:
    quantised, seconds = side.quantised(name, windows)
    found: Comparison = compare(quantised, reference, texts)
    return {"cpu_seconds": seconds, "kl": found.kl, "document_kl": found.document_kl.tolist()}


def row(name: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means of a method over its draws, and the ratios ours / theirs."""
    sides = {
        side: torch.tensor([cell[side]["document_kl"] for cell in cells], dtype=torch.float64).mean(0)
        for side in ("ours", "theirs")
    }
    seconds = {side: sum(cell[side]["cpu_seconds"] for cell in cells) / len(cells) for side in sides}
    return {
        "name": name,
        "draws": len(cells),
        "kl": {side: kl.mean().item() for side, kl in sides.items()},
        "kl_ratio": paired_ratio(sides["ours"], sides["theirs"]),
        "cpu_seconds": seconds,
        "cpu_ratio": seconds["ours"] / seconds["theirs"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [
        "| method | draws | KL ours / theirs | ratio (95 %) | CPU s ours / theirs | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for one in rows:
        kl, seconds, (mean, low, high) = one["kl"], one["cpu_seconds"], one["kl_ratio"]
        lines.append(
            f"| {one['name']} | {one['draws']} | {kl['ours']:.6f} / {kl['theirs']:.6f} | "
            f"{mean:.3f} ({low:.3f} to {high:.3f}) | {seconds['ours']:.1f} / {seconds['theirs']:.1f} | "
            f"{one['cpu_ratio']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--python", type=Path, required=True, help="the Python of llm-compressor's environment"
    )
    parser.add_argument("--model", default="tinytales", help="a bundled name, or the folder of a Llama")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--draws", type=int, default=5, help="calibration texts of each method that needs one"
    )
    parser.add_argument("--windows", type=int, default=64, help="of 256 tokens in a calibration text")
    parser.add_argument("--texts", type=int, default=64, help="windows of the held-out texts to compare on")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the model's copy"
    )
    parser.add_argument("--work", type=Path, default=ROOT / ".peers" / "llm-compressor-runs")
    parser.add_argument("--json", type=Path, help="write the result here too")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    folder = copied(model_folder(args.model), getattr(torch, args.dtype), args.work)
    stored = open_model(folder)
    tokenizer = stored.tokenizer()
    assert tokenizer is not None
    about = {
        "model": args.model,
        "machine": device_name("cpu"),
        "dtype": args.dtype,
        "windows": args.windows,
        "texts": args.texts,
        "sources": sources(),
    }
    cells_file = args.work / f"cells-{digest(about)}.json"
    cells = json.loads(cells_file.read_text()) if cells_file.exists() else {}
    calibration = draws_of(
        tokenizer.encode(CALIBRATION.read_text(encoding="utf-8")), args.draws, args.windows
    )
    with torch.inference_mode():
        model = stored.weights(CPU, torch.float32)
        texts = held_out(tokenizer.encode, args.texts)
        sides = {"theirs": Theirs(args.python, folder, model, args.work), "ours": Ours(model)}
        for draw, windows in enumerate(calibration):
            for name in args.methods:
                calibrated = METHODS[name].calibrated
                key = f"{name}/{draw}"
                if key not in cells and (calibrated or draw == 0):
                    cells[key] = {
                        label: measured(side, name, windows if calibrated else [], model, texts)
                        for label, side in sides.items()
                    }
                    cells_file.write_text(json.dumps(cells))
                    kl = [cells[key][label]["kl"] for label in ("ours", "theirs")]
                    print(f"{key}: KL {kl[0]:.6f}, theirs {kl[1]:.6f}", flush=True)
    rows = [
        row(name, [cells[key] for key in sorted(cells) if key.rpartition("/")[0] == name])
        for name in args.methods
    ]
    print("\n" + table(rows))
    if args.json:
        args.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
