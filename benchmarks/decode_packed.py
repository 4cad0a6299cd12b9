"""How much faster does a model decode with packed weights? One request, random weights in the shape of Llama 3 8B.

    python benchmarks/decode_packed.py --device cuda

Each token reads all weights but the embedding, so a weight of half the bytes should take half the time. The head keeps
its 16 bits, and attention, norms and launches cost the same as before. On a GPU every side decodes with CUDA graphs. On
a CPU the shape is that of the bundled model, in float32. The sides are measured alternately.
"""

from typing import Any

import torch
from _rows import arguments, report
from decode_roofline import engine_of, generate, random_model

from minillm.llm import model_folder
from minillm.measure.known_models import KNOWN_MODELS
from minillm.measure.timing import interleaved, ratio_of, spread_of
from minillm.model.families import read_config
from minillm.quantization.schemes import ON_THE_FLY, OnTheFly

TARGETS = {"int8": (1.5, 1.65), "int4": (2.0, 2.45)}  # floor and goal on a GPU


def rows_of(times: dict[str, list[float]], num_tokens: int, on_gpu: bool) -> list[dict[str, Any]]:
    """Tokens per second of each side, and how many times as fast the packed ones are."""
    rows: list[dict[str, Any]] = [
        {"name": f"{name}: speed", "value": num_tokens / spread_of(seconds).median, "unit": "tok/s"}
        for name, seconds in times.items()
    ]
    for name, (floor, goal) in TARGETS.items():
        ratio = ratio_of(times["floats"], times[name])
        row = {"name": f"{name} / floats", "value": ratio.median, "unit": "x"}
        row |= {"low": ratio.low, "high": ratio.high, "rounds": len(times[name])}
        rows.append(row | ({"floor": floor, "goal": goal} if on_gpu else {}))
    return rows


def main() -> None:
    args = arguments(__doc__, tokens=128, rounds=5)
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    config = KNOWN_MODELS["llama_3_8b"] if on_gpu else read_config(model_folder("tinytales"))
    floats = random_model(config, device, torch.bfloat16 if on_gpu else torch.float32)
    models = {"floats": floats} | {
        name: floats.with_projections(OnTheFly(ON_THE_FLY[name]).quantise) for name in TARGETS
    }
    engines = {name: engine_of(model, graphs=on_gpu) for name, model in models.items()}
    sides = {name: lambda engine=engine: generate(engine, args.tokens) for name, engine in engines.items()}
    report(rows_of(interleaved(sides, args.rounds, device=device), args.tokens, on_gpu), args)


if __name__ == "__main__":
    main()
