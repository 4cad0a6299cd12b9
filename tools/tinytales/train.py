"""Train `tinytales` and its draft from the token files of corpus.py, on a CPU or a GPU.

    python -m tools.tinytales.train build/tinytales --model target --tokens 7.4e6
    python -m tools.tinytales.train build/tinytales --model draft --tokens 3.2e6

Matrices are trained with Muon (Jordan 2024), embeddings and norms with AdamW; the learning rate warms up,
stays, and falls linearly over the last 40 %. Rows are 512 tokens, and 1,024 for the last quarter, so that every
position of the context has been trained. The result is an ordinary Hugging Face folder in bfloat16.
"""

import argparse
import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from tools.tinytales.corpus import CONTEXT, VOCAB_SIZE

TOKENS_PER_STEP = 8192
SHAPES = {
    "target": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "heads": (8, 4)},
    "draft": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 1, "heads": (4, 2)},
}
FOLDERS = {"target": "tinytales", "draft": "tinytales-draft"}


def build(name: str) -> LlamaForCausalLM:
    shape = dict(SHAPES[name])
    heads, kv_heads = shape.pop("heads")
    config = LlamaConfig(
        **shape,
        vocab_size=VOCAB_SIZE,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=0.01, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=0.004, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def learning_rate(progress: float, warmup: float = 0.02, decay: float = 0.4) -> float:
    """Factor on each optimiser's rate: up, flat, then straight down to 2 %."""
    if progress < warmup:
        return progress / warmup
    return min(1.0, max(0.02, (1 - progress) / decay))


def batch_at(ids: np.ndarray, start: int, rows: int, length: int, device: str) -> tuple[Tensor, Tensor]:
    """`rows` windows one after another from `start`, wrapping round; inputs and targets [rows, length]."""
    index = (start + np.arange(rows * length + 1)) % len(ids)
    window = torch.from_numpy(ids[index].astype(np.int64)).to(device)
    return window[:-1].view(rows, length), window[1:].view(rows, length)


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    with torch.autocast(inputs.device.type, torch.bfloat16):
        logits = model(input_ids=inputs).logits
    return nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


@torch.no_grad()
def evaluate(model: nn.Module, ids: np.ndarray, device: str, max_tokens: int = 65_536) -> float:
    rows = min(len(ids) - 1, max_tokens) // CONTEXT
    losses = [loss_of(model, *batch_at(ids, i * CONTEXT, 1, CONTEXT, device)).item() for i in range(rows)]
    return float(np.mean(losses))


def train(name: str, folder: Path, num_tokens: int, seed: int, device: str) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    ids = np.fromfile(folder / "train.bin", dtype=np.uint16)
    heldout = np.fromfile(folder / "heldout.bin", dtype=np.uint16)
    model = build(name).to(device)
    step_loss = torch.compile(loss_of)
    optims = optimizers(model)
    base_rates = [o.param_groups[0]["lr"] for o in optims]
    steps, began, seen = num_tokens // TOKENS_PER_STEP, time.time(), 0
    for step in range(steps):
        length = CONTEXT if step >= 0.75 * steps else CONTEXT // 2
        inputs, targets = batch_at(ids, seen, TOKENS_PER_STEP // length, length, device)
        loss = step_loss(model, inputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim, rate in zip(optims, base_rates, strict=True):
            optim.param_groups[0]["lr"] = rate * learning_rate((step + 1) / steps)
            optim.step()
            optim.zero_grad(set_to_none=True)
        seen += TOKENS_PER_STEP
        if step % 10 == 0 or step == steps - 1:
            rate = seen / (time.time() - began)
            print(f"{name} {step}/{steps} loss {loss.item():.4f} {rate:,.0f} tok/s", flush=True)
        if step % 250 == 249 or step == steps - 1:
            held = evaluate(model, heldout, device)
            print(f"{name} held-out loss {held:.4f} perplexity {math.exp(held):.3f}", flush=True)
            save(
                model,
                name,
                folder,
                {"tokens": seen, "steps": step + 1, "seconds": round(time.time() - began)},
            )
    return model


def save(model: LlamaForCausalLM, name: str, folder: Path, log: dict[str, int]) -> None:
    out = folder / FOLDERS[name]
    copy = build(name)
    copy.load_state_dict(model.state_dict())
    # Training needs no cache; whoever generates with it does.
    copy.config.use_cache = copy.generation_config.use_cache = True
    copy.to(torch.bfloat16).save_pretrained(out)
    for file in (folder / "tokenizer").iterdir():
        shutil.copy(file, out / file.name)
    (out / "training.json").write_text(json.dumps({"model": name, **log}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=SHAPES, required=True)
    parser.add_argument("--tokens", type=float, default=16e6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    train(args.model, args.folder, int(args.tokens), args.seed, args.device)


if __name__ == "__main__":
    main()
