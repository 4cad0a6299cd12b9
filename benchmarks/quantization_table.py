"""Every method of quantisation on one model: how far it moves the model, how many bytes it leaves, how long it takes.

    python benchmarks/quantization_table.py                                  all rows, the bundled model
    python benchmarks/quantization_table.py --model PATH --rows six          six rows, for a model of 100M or more
    python benchmarks/quantization_table.py --planted                        with outliers planted in four channels

KL is KL(float32 || quantised) in nats per token, "agrees" how often both rank the same token first, perplexity that of
the quantised model, all over held-out texts that no method saw. "against RTN" is the KL divided by that of rounding to
nearest with the same bits and groups: a 95 % interval of a paired bootstrap over the texts; if 1 lies inside, there is
"no effect". Bytes are those of the projections: numbers, scales and zeros. 3 bits are simulated, and have no bytes.

A row is written as soon as it is measured. The same command continues where a stopped one ended.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from _rows import paired_ratio
from torch import Tensor

from minillm.llm import BUNDLED, model_folder
from minillm.measure.timing import device_name
from minillm.model.stored import StoredModel, open_model
from minillm.model.transformer import Transformer
from minillm.quantization.absmax import PER_CHANNEL
from minillm.quantization.compare import compare
from minillm.quantization.methods import Recipe, simulate
from minillm.quantization.outliers import plant_outliers
from minillm.quantization.quantise import CALIBRATION, calibration_windows

TEXTS = [BUNDLED / "heldout" / f"{name}.txt" for name in ("stories", "tales")]
WINDOW = 256  # tokens of a text
PLANTED = (3, 77, 130, 201)  # channels


@dataclass(frozen=True)
class Setting:
    """One row: a method and what it is told. None is the method's own choice."""

    method: str
    bits: int | None = None
    group_size: int | None = None
    act_order: bool = False

    @property
    def name(self) -> str:
        grouped = "" if self.group_size is None else f" {self.bits} bits, groups of {self.group_size}"
        return self.method + (" act-order" if self.act_order else "") + grouped


WITHOUT_GROUPS = [Setting(name) for name in ("int8", "w8a8", "smoothquant", "fp8", "mxfp4", "nvfp4")]


def all_rows() -> list[Setting]:
    grouped = [
        Setting(method, bits, size, act_order)
        for bits in (8, 4, 3)
        for size in (32, 64, 128)
        for method, act_order in (("rtn", False), ("gptq", False), ("gptq", True), ("awq", False))
    ]
    return WITHOUT_GROUPS + grouped


def six_rows(size: int, from_4_bits: bool) -> list[Setting]:
    """Return the rows for a large model. Rounding a model that comes from 4 bits to 4 bits again would say nothing."""
    if from_4_bits:
        return WITHOUT_GROUPS[:4] + [Setting(method, 8, size) for method in ("rtn", "gptq")]
    return WITHOUT_GROUPS[:3] + [Setting(method, 4, size) for method in ("rtn", "gptq", "awq")]


def windows_of(stored: StoredModel, tokens: int) -> list[list[int]]:
    """Return up to `tokens` tokens of the held-out texts, equally many of each, in windows."""
    tokenizer = stored.tokenizer()
    assert tokenizer is not None
    found = []
    for path in TEXTS:
        ids = tokenizer.encode(path.read_text(encoding="utf-8"))[: tokens // len(TEXTS)]
        found += [ids[i : i + WINDOW] for i in range(0, len(ids) - WINDOW + 1, WINDOW)]
    return found


def matrices(model: Transformer) -> list[Tensor]:
    """Return the weights [in, out] of all projections but the head."""
    return [
        linear.weight
        for block in model.weights.blocks
        for linear in (block.qkv, block.o, block.mlp.gate_up, block.mlp.down)
    ]


def packed_bytes(model: Transformer, setting: Setting) -> int | None:
    """Return the bytes of the packed projections, or None for a method or number of bits that is simulated only."""
    try:
        recipe = Recipe.of(
            model.config, setting.method, setting.bits, setting.group_size, setting.act_order, packed=True
        )
    except ValueError:
        return None
    total = 0
    for weight in matrices(model):
        size_in, out = weight.shape
        groups = 1 if recipe.group_size == PER_CHANNEL else size_in // recipe.group_size
        total += out * (size_in * recipe.bits // 8 + groups * recipe.dtype.itemsize)
    return total


def measure(
    model: Transformer, setting: Setting, calibration: list[list[int]], texts: list[list[int]]
) -> dict[str, Any]:
    began = time.process_time()
    quantised = simulate(
        model, setting.method, setting.bits, setting.group_size, calibration, setting.act_order
    )
    seconds = time.process_time() - began
    found = compare(quantised, model, texts)
    return {
        "name": setting.name,
        **asdict(setting),
        "kl": found.kl,
        "agreement": found.agreement,
        "perplexity": found.perplexity,
        "bytes": packed_bytes(model, setting),
        "cpu_seconds": seconds,
        "document_kl": found.document_kl.tolist(),
    }


def base_of(row: dict[str, Any]) -> str:
    """Return the name of the row that a row is compared with: the same numbers, rounded to nearest."""
    same = Setting("rtn", row["bits"], row["group_size"])
    return "w8a8" if row["method"] == "smoothquant" else same.name


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to each row its KL against that of rounding to nearest, if that was measured."""
    by_name = {row["name"]: row for row in rows}
    for row in rows:
        base = by_name.get(base_of(row))
        if base is not None and base is not row:
            row["against"] = paired_ratio(torch.tensor(row["document_kl"]), torch.tensor(base["document_kl"]))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [
        "| method | KL | agrees | perplexity | MB | CPU s | KL against RTN |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        size = "simulated" if row["bytes"] is None else f"{row['bytes'] / 1e6:.2f}"
        effect = ""
        if "against" in row:
            ratio, low, high = row["against"]
            effect = f"{ratio:.2f} ({low:.2f} to {high:.2f})" + (", no effect" if low <= 1 <= high else "")
        lines.append(
            f"| {row['name']} | {row['kl']:.5f} | {row['agreement']:.1%} | {row['perplexity']:.3f} | {size} | "
            f"{row['cpu_seconds']:.1f} | {effect} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tinytales", help="a bundled name, a folder or a GGUF file")
    parser.add_argument("--rows", choices=("all", "six"), default="all")
    parser.add_argument("--tokens", type=int, default=16_384, help="of the texts to compare on")
    parser.add_argument("--windows", type=int, default=64, help="of 256 tokens for the calibration")
    parser.add_argument("--planted", action="store_true", help="plant outliers (an exact change) first")
    parser.add_argument(
        "--json", type=Path, help="the result (default: benchmarks/results/quantization-MODEL.json)"
    )
    args = parser.parse_args()
    stored = open_model(model_folder(args.model))
    name = Path(args.model).name + ("-planted" if args.planted else "")
    out = args.json or Path(__file__).parent / "results" / f"quantization-{name}.json"
    with torch.inference_mode():
        model = stored.weights(torch.device("cpu"), torch.float32)
        if args.planted:
            model = plant_outliers(model, PLANTED)
        texts = windows_of(stored, args.tokens)
        calibration = calibration_windows(stored, CALIBRATION)[: args.windows]
        baseline = compare(model, model, texts)
        about = {
            "model": name,
            "machine": device_name("cpu"),
            "compared_on_tokens": sum(len(text) - 1 for text in texts),
            "calibration_tokens": sum(map(len, calibration)),
            "float32_perplexity": baseline.perplexity,
            "float32_bytes": 4 * sum(map(torch.numel, matrices(model))),
        }
        done = json.loads(out.read_text()) if out.exists() else {"about": about, "rows": []}
        if done["about"] != about:
            raise SystemExit(f"{out} was measured with other settings: remove it, or give another --json")
        known = {row["name"] for row in done["rows"]}
        size = 64 if model.config.hidden_size % 128 else 128
        from_4_bits = stored.quantization_config is not None
        settings = all_rows() if args.rows == "all" else six_rows(size, from_4_bits)
        for setting in settings:
            if setting.name not in known:
                done["rows"].append(measure(model, setting, calibration, texts))
                out.write_text(json.dumps(done, indent=1) + "\n")
                print(f"{setting.name}: KL {done['rows'][-1]['kl']:.5f}", flush=True)
    done["rows"] = with_ratios(done["rows"])
    out.write_text(json.dumps(done, indent=1) + "\n")
    print(f"\n{name}, float32: perplexity {baseline.perplexity:.3f}, {about['float32_bytes'] / 1e6:.2f} MB\n")
    print(table(done["rows"]))


if __name__ == "__main__":
    main()
