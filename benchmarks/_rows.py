"""Helpers for all benchmarks: their arguments, and the output of rows.

A row is `{"name", "value", "unit"}`. If it has a target, it also has "floor" (at least) or "ceiling" (at most), and
"goal". If it is a ratio over several rounds, it also has "low", "high" and "rounds".
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RESAMPLES = 10_000  # of a bootstrap


def arguments(doc: str | None, device: str = "cpu", **options: float) -> argparse.Namespace:
    """The command line: `--device`, `--json`, and a number for each of `options`, whose values are the defaults."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    for name, default in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--device", default=device)
    parser.add_argument("--json", type=Path, help="write the result here too")
    return parser.parse_args()


def paired_ratio(numerator: Tensor, denominator: Tensor) -> list[float]:
    """The ratio of two means over the same texts, and its 95 % interval by a paired bootstrap: [ratio, low, high]."""
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(numerator), (RESAMPLES, len(numerator)), generator=generator)
    ratios = numerator[picks].mean(1) / denominator[picks].mean(1)
    low, high = ratios.quantile(torch.tensor([0.025, 0.975], dtype=ratios.dtype)).tolist()
    return [(numerator.mean() / denominator.mean()).item(), low, high]


def report(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Show the rows, and write them to the file that was asked for."""
    for row in rows:
        line = f"{row['name']}: {row['value']:,.3f} {row['unit']}"
        if "low" in row:
            line += f"  ({row['low']:.3f} to {row['high']:.3f})"
        limits = [f"{limit} {row[limit]}" for limit in ("floor", "ceiling", "goal") if limit in row]
        print(line + (f"  [{', '.join(limits)}]" if limits else ""))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")
