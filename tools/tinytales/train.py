"""Train `tinytales` and its draft from the token files of corpus.py, on a CPU or a GPU.

    python -m tools.tinytales.train build/tinytales --model target --tokens 12e6
    python -m tools.tinytales.train build/tinytales --model draft --tokens 6e6

Matrices are trained with Muon (Jordan 2024), embeddings and norms with AdamW. The learning rate warms up, stays, and
falls linearly over the last 40 %. Rows are 512 tokens, and 1,024 for the last quarter, so that every position of the
context has been trained. The result is an ordinary Hugging Face folder in bfloat16.

The run saves its state every five minutes and when it is interrupted. The same command goes on from there, also with
another number of tokens: the learning rate then falls sooner or later. `--minutes` ends a run early in the same way.
"""

import argparse
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from tools.tinytales.corpus import CONTEXT, VOCAB_SIZE

TOKENS_PER_STEP = 4096
SAVE_EVERY_S = 300.0
SHAPES = {
    "target": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "heads": (8, 4)},
    "draft": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 1, "heads": (4, 2)},
}
FOLDERS = {"target": "tinytales", "draft": "tinytales-draft"}

Ids = NDArray[np.integer[Any]]
LossOf = Callable[[nn.Module, Tensor, Tensor], Tensor]


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
        torch.optim.Muon(
            matrices, lr=0.0025, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=0.003, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def learning_rate(progress: float, warmup: float = 0.02, decay: float = 0.4) -> float:
    """Factor on each optimiser's rate: up, flat, then straight down to 2 %."""
    if progress < warmup:
        return progress / warmup
    return min(1.0, max(0.02, (1 - progress) / decay))


def batch_at(ids: Ids, start: int, rows: int, length: int, device: str) -> tuple[Tensor, Tensor]:
    """`rows` windows one after another from `start`, wrapping round; inputs and targets [rows, length]."""
    index = (start + np.arange(rows * length + 1)) % len(ids)
    window = torch.from_numpy(ids[index].astype(np.int64)).to(device)
    return window[:-1].view(rows, length), window[1:].view(rows, length)


def capitalised(folder: Path) -> Ids:
    """Return the tokens that are one whole capitalised word after a space. Most of them are names."""
    tokenizer = json.loads((folder / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    return np.array(sorted(i for token, i in vocab.items() if re.fullmatch("Ġ[A-Z][a-z]+", token)))


def lesson(words: Ids, rng: np.random.Generator, length: int) -> Ids:
    """Return `length` tokens: lists of 3 to 12 different words, each list written four times."""
    lists: list[Ids] = []
    while sum(map(len, lists)) < length:
        lists.append(np.tile(rng.choice(words, rng.integers(3, 13), replace=False), 4))
    return np.concatenate(lists)[:length]


def put_lessons(
    inputs: Tensor, targets: Tensor, words: Ids, seed: int, share: float
) -> tuple[Tensor, Tensor]:
    """Replace this share of the rows [rows, length] by lessons in copying, in the mean of many steps."""
    rng = np.random.default_rng(seed)
    rows, length = inputs.shape
    kept = rows - int(share * rows + rng.random())
    if kept == rows:
        return inputs, targets
    copies = np.stack([lesson(words, rng, length + 1) for _ in range(kept, rows)])
    window = torch.from_numpy(copies.astype(np.int64)).to(inputs.device)
    return torch.cat((inputs[:kept], window[:, :-1])), torch.cat((targets[:kept], window[:, 1:]))


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    with torch.autocast(inputs.device.type, torch.bfloat16):
        logits = model(input_ids=inputs).logits
    return nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


@torch.no_grad()
def evaluate(model: nn.Module, ids: Ids, device: str, max_tokens: int = 65_536) -> float:
    rows = min(len(ids) - 1, max_tokens) // CONTEXT
    losses = [loss_of(model, *batch_at(ids, i * CONTEXT, 1, CONTEXT, device)).item() for i in range(rows)]
    return float(np.mean(losses))


class Run:
    """One training run: model, optimisers and position, which `checkpoint` keeps and `resume` brings back."""

    def __init__(self, name: str, folder: Path, seed: int, device: str) -> None:
        torch.manual_seed(seed)
        self.name, self.folder, self.device = name, folder, device
        self.model = build(name).to(device)
        self.optims = optimizers(self.model)
        self.rates = [optim.param_groups[0]["lr"] for optim in self.optims]
        self.seen, self.seconds = 0, 0.0

    @property
    def path(self) -> Path:
        return self.folder / f"state-{self.name}.pt"

    def checkpoint(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optims": [optim.state_dict() for optim in self.optims],
            "random": torch.get_rng_state(),
            "seen": self.seen,
            "seconds": self.seconds,
        }
        unfinished = self.path.with_suffix(".tmp")
        torch.save(state, unfinished)
        unfinished.replace(self.path)

    def resume(self) -> None:
        """Go on where the last run of this model stopped, if there was one."""
        if not self.path.exists():
            return
        state: dict[str, Any] = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optim, saved in zip(self.optims, state["optims"], strict=True):
            optim.load_state_dict(saved)
        torch.set_rng_state(state["random"])
        self.seen, self.seconds = state["seen"], state["seconds"]
        print(f"{self.name}: {self.seen:,} tokens are done, going on", flush=True)

    def step(self, loss: Tensor, progress: float) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optim, rate in zip(self.optims, self.rates, strict=True):
            optim.param_groups[0]["lr"] = rate * learning_rate(progress)
            optim.step()
            optim.zero_grad(set_to_none=True)
        self.seen += TOKENS_PER_STEP


def train(
    run: Run, num_tokens: int, minutes: float = math.inf, loss_of: LossOf = loss_of, lessons: float = 0.0
) -> bool:
    """Train up to `num_tokens`, or for `minutes`; return True when all tokens are done."""
    ids = np.fromfile(run.folder / "train.bin", dtype=np.uint16)
    words = capitalised(run.folder) if lessons else np.empty(0)
    heldout = np.fromfile(run.folder / "heldout.bin", dtype=np.uint16)
    began, saved, before = time.monotonic(), time.monotonic(), run.seconds
    start = run.seen
    while run.seen + TOKENS_PER_STEP <= num_tokens:
        length = CONTEXT if run.seen >= 0.75 * num_tokens else CONTEXT // 2
        inputs, targets = batch_at(ids, run.seen, TOKENS_PER_STEP // length, length, run.device)
        if lessons:
            inputs, targets = put_lessons(inputs, targets, words, run.seen, lessons)
        loss = loss_of(run.model, inputs, targets)
        run.step(loss, (run.seen + TOKENS_PER_STEP) / num_tokens)
        run.seconds = before + time.monotonic() - began
        step = run.seen // TOKENS_PER_STEP
        if step % 20 == 0:
            rate = (run.seen - start) / (time.monotonic() - began)
            print(
                f"{run.name} {run.seen:,}/{num_tokens:,} loss {loss.item():.4f} {rate:,.0f} tok/s", flush=True
            )
        if step % 400 == 0:
            held = evaluate(run.model, heldout, run.device)
            print(f"{run.name} held-out loss {held:.4f} perplexity {math.exp(held):.3f}", flush=True)
        if time.monotonic() - began > minutes * 60:
            return False
        if time.monotonic() - saved > SAVE_EVERY_S:
            run.checkpoint()
            saved = time.monotonic()
    return True


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
    parser.add_argument("--tokens", type=float, default=12e6)
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after this long; run again to go on"
    )
    parser.add_argument(
        "--lessons", type=float, default=0.0, help="share of the rows that are lessons in copying"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    os.nice(10)
    run = Run(args.model, args.folder, args.seed, args.device)
    run.resume()
    try:
        done = train(run, int(args.tokens), args.minutes, torch.compile(loss_of), args.lessons)
    finally:
        run.checkpoint()
    log = {"tokens": run.seen, "steps": run.seen // TOKENS_PER_STEP, "seconds": round(run.seconds)}
    save(run.model, run.name, args.folder, log)
    print(
        f"{args.model}: " + ("done" if done else f"stopped at {run.seen:,} tokens: run this again to go on")
    )


if __name__ == "__main__":
    main()
