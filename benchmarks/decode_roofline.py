"""How close does decoding come to the speed of the memory? One request, random weights in the shape of Llama 3 8B.

    python benchmarks/decode_roofline.py --device cuda

Each token reads all weights except the embedding once. So the read bandwidth divided by these bytes is the highest
possible number of tokens per second. One run measures both the bandwidth and the speed, alternately with and without
CUDA graphs. The speed does not depend on the values of the weights. On a CPU, the shape is that of the bundled model.
"""

from typing import Any

import torch
from _rows import arguments, report

from minillm.cache.kv_cache import KVCache
from minillm.cache.manager import KVCacheManager
from minillm.config import ModelConfig
from minillm.engine.engine import Engine
from minillm.engine.graphs import CudaRecorder, DecodeGraphs
from minillm.engine.runner import Runner
from minillm.engine.scheduler import Scheduler
from minillm.llm import model_folder
from minillm.measure.costs import decode_cost
from minillm.measure.known_models import KNOWN_MODELS
from minillm.measure.local import this_machine
from minillm.measure.timing import interleaved, ratio_of, spread_of
from minillm.model.embedding import Embedding
from minillm.model.families import read_config
from minillm.model.linear import Linear
from minillm.model.mlp import DenseMlp
from minillm.model.transformer import Block, Norm, Transformer, Weights
from minillm.ops import ops_for
from minillm.sampling import SamplingParams

CONTEXT, BLOCK = 1024, 16


def random_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Transformer:
    """Weights of the right shapes, laid out as the loader lays them out."""

    def linear(size_in: int, size_out: int) -> Linear:
        shape = (size_in, size_out) if device.type == "cpu" else (size_out, size_in)
        memory = torch.empty(shape, dtype=dtype, device=device).normal_(std=0.02)
        return Linear(memory if device.type == "cpu" else memory.t())

    def norm(size: int) -> Norm:
        return Norm(torch.ones(size, dtype=dtype, device=device))

    h, m = config.hidden_size, config.intermediate_size
    blocks = [
        Block(
            attention_norm=norm(h),
            qkv=linear(h, config.q_size + 2 * config.kv_size),
            o=linear(config.q_size, h),
            mlp_norm=norm(h),
            mlp=DenseMlp(gate_up=linear(h, 2 * m), down=linear(m, h)),
        )
        for _ in range(config.num_hidden_layers)
    ]
    embed = torch.empty(config.vocab_size, h, dtype=dtype, device=device).normal_(std=0.02)
    weights = Weights(Embedding(embed), blocks, norm(h), linear(h, config.vocab_size))
    return Transformer(config, weights, ops_for(device))


def engine_of(model: Transformer, graphs: bool) -> Engine:
    num_blocks = CONTEXT // BLOCK
    cache = KVCache(model.config, num_blocks, BLOCK, model.dtype, model.device, model.ops)
    recorded = DecodeGraphs(model, cache, 1, CONTEXT, CudaRecorder()) if graphs else None
    memory = KVCacheManager(num_blocks, BLOCK)
    return Engine(Runner(model, cache, recorded), memory, Scheduler(memory, 1, 2048), max_model_len=CONTEXT)


def generate(engine: Engine, num_tokens: int) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True, detokenize=False)
    engine.add_request(list(range(1, 17)), params)
    while engine.has_unfinished:
        engine.step()


def main() -> None:
    args = arguments(__doc__, tokens=128, rounds=5)
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    config = KNOWN_MODELS["llama_3_8b"] if on_gpu else read_config(model_folder("tinytales"))
    model = random_model(config, device, torch.bfloat16 if on_gpu else torch.float32)
    machine = this_machine(device, refresh=True)
    cost = decode_cost(config, context=args.tokens // 2, bytes_per_weight=model.dtype.itemsize)
    most = machine.read_bandwidth / cost.weight_bytes
    engines = {"eager": engine_of(model, graphs=False)}
    if on_gpu:
        engines["graphs"] = engine_of(model, graphs=True)
    sides = {name: lambda engine=engine: generate(engine, args.tokens) for name, engine in engines.items()}
    times = interleaved(sides, args.rounds, device=device)
    rows: list[dict[str, Any]] = [
        {"name": "read bandwidth", "value": machine.read_bandwidth / 1e9, "unit": "GB/s"},
        {"name": "bytes of weights a token", "value": cost.weight_bytes / 1e9, "unit": "GB"},
        {"name": "the most tokens a second", "value": most, "unit": "tok/s"},
    ]
    for name, seconds in times.items():
        speed = args.tokens / spread_of(seconds).median
        limits = {"floor": 0.80, "goal": 0.90} if name == "graphs" else {}
        rows.append({"name": f"{name}: speed", "value": speed, "unit": "tok/s"})
        rows.append({"name": f"{name}: of the most", "value": speed / most, "unit": "share"} | limits)
    if on_gpu:
        rows.append(
            {"name": "graphs / eager", "value": ratio_of(times["eager"], times["graphs"]).median, "unit": "x"}
        )
    report(rows, args)


if __name__ == "__main__":
    main()
