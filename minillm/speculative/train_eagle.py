"""Train an EAGLE-3 head on texts that the model wrote, as it will be used: the training-time test.

A head that has only seen the model's features is surprised by its own. So each window of a text is computed several
times, one pass per draft. Pass 0 starts at every position t from the model's feature. Pass j starts from the output of
pass j - 1 at t, and reads the next token of the text: it writes the draft j of the chain that began at t. A chain sees
the model's features up to t, from pass 0, and of the later passes its own positions alone:

    pass 0    keys 0 … t                          input: features of the model, token t + 1
    pass 1    keys 0 … t of pass 0, t of pass 1   input: output of pass 0 at t, token t + 2
    pass 2    … and t of pass 2                   input: output of pass 1 at t, token t + 3

The loss of pass j is the cross entropy -sum p log q over the draft vocabulary. p is the model's distribution after
token t + 1 + j. Positions where the model's most probable token has no entry do not count. The model is frozen.

Source: Li et al. 2025, "EAGLE-3" (arXiv 2503.01840), section 3.2; github.com/SafeAILab/EAGLE, `eagle/traineagle3`.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import NoCache
from minillm.config import ModelConfig, RopeConfig
from minillm.model.linear import Linear
from minillm.model.mlp import DenseMlp
from minillm.model.transformer import Block, Norm, Transformer, Weights, tensors_of
from minillm.ops import Ops, causal_mask
from minillm.sampling import SamplingParams
from minillm.speculative.eagle import EagleHead
from minillm.speculative.eagle_checkpoint import check_new, save_head

Generate = Callable[[Sequence[Sequence[int]], SamplingParams], list[list[int]]]


@dataclass(frozen=True, kw_only=True)
class Training:
    """The numbers of a training run. `num_passes` is the number of drafts that a chain is trained for.

    Each of `num_steps` steps reads `num_windows` windows of `window` tokens. Pass j counts `decay` ** j times.
    """

    draft_vocab_size: int = 2048
    intermediate_size: int = 512
    num_texts: int = 512
    text_length: int = 512
    num_steps: int = 2000
    num_windows: int = 4
    window: int = 256
    num_passes: int = 4
    decay: float = 0.8
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_texts", "num_steps"):
            lowest = 4 if name == "num_texts" else 1
            if getattr(self, name) < lowest:
                raise ValueError(f"{name}={getattr(self, name)}: give at least {lowest}")
        if not self.num_passes + 1 < self.window <= self.text_length:
            raise ValueError(
                f"window={self.window} must be above num_passes + 1 = {self.num_passes + 1}, and at most "
                f"text_length={self.text_length}"
            )

    @classmethod
    def of(cls, max_model_len: int, **changes: Any) -> "Training":
        """Return the usual numbers with `changes`, for texts of at most `max_model_len` tokens."""
        length = min(cls.text_length, max_model_len)
        return cls(text_length=length, window=min(cls.window, length), **changes)


def train_eagle(
    target: Transformer,
    generate: Generate,
    out: Path,
    training: Training,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> dict[str, list[float]]:
    """Write a head for `target` as the folder `out`. Return its `acceptance` on texts that were not trained on.

    `generate(prompts, params)` returns what the model writes. Raises `ValueError` if `out` is there already.
    """
    check_new(out)
    start = next(iter((target.config.bos_token_id, *target.config.eos_token_ids)), None) or 0
    sampled, greedy = own_texts(generate, start, training)
    num_held = max(1, len(greedy) // 16)
    head = train(target, [*sampled[num_held:], *greedy[num_held:]], training, progress)
    save_head(head, out, asdict(training))
    return {
        name: acceptance(head, target, torch.tensor(texts[:num_held]), training.num_passes)
        for name, texts in (("sampled", sampled), ("greedy", greedy))
    }


def own_texts(generate: Generate, start: int, training: Training) -> tuple[list[list[int]], list[list[int]]]:
    """Return two lists of texts that the model wrote after the token `start`: sampled ones and greedy ones.

    A greedy text begins with 24 tokens of a sampled one, so that there is more than one.
    """
    half, length = training.num_texts // 2, training.text_length
    sampling = SamplingParams(max_tokens=length - 1, ignore_eos=True)
    sampled = [[start, *text] for text in generate([[start]] * half, sampling)]
    heads = [text[:25] for text in sampled]
    most_probable = SamplingParams(temperature=0, max_tokens=length - len(heads[0]), ignore_eos=True)
    greedy = [head + text for head, text in zip(heads, generate(heads, most_probable), strict=True)]
    return sampled, greedy


def most_frequent(texts: Sequence[Sequence[int]], size: int, vocab_size: int) -> Tensor:
    """Return the `size` most frequent token ids, sorted; ids that do not occur fill up, the lowest first."""
    counts = Counter(chain.from_iterable(texts))
    ids = sorted(range(vocab_size), key=lambda i: -counts[i])[:size]
    return torch.tensor(sorted(ids))


def layers_to_read(num_layers: int) -> tuple[int, ...]:
    """Return an early, a middle and a late layer, counted as `taps`. They may be equal in a model of two layers."""
    return (
        (1, num_layers // 2 - 1, num_layers - 4)
        if num_layers > 7
        else (0, (num_layers - 1) // 2, num_layers - 2)
    )


def new_head(target: Transformer, target_ids: Tensor, training: Training) -> EagleHead:
    """Return a head in float32 with random weights. Only the last norm and the logits begin as those of the model."""
    generator = torch.Generator().manual_seed(training.seed)
    h, m = target.config.hidden_size, training.intermediate_size
    taps = layers_to_read(target.config.num_hidden_layers)
    config = head_config(target.config, m)

    def matrix(size_in: int, size_out: int) -> Linear:
        return Linear(torch.randn(size_in, size_out, generator=generator) * size_in**-0.5 / 2)

    def ones() -> Norm:
        return Norm(torch.ones(h))

    block = Block(
        attention_norm=ones(),
        qkv=matrix(2 * h, config.q_size + 2 * config.kv_size),
        o=matrix(config.q_size, h),
        mlp_norm=ones(),
        mlp=DenseMlp(matrix(h, 2 * m), matrix(m, h)),
    )
    with torch.inference_mode():
        logits = target.weights.lm_head(torch.eye(h, dtype=target.dtype, device=target.device), target.ops)
    lm_head = Linear(logits[:, target_ids.to(target.device)].float().cpu().clone())
    final_norm = Norm(target.weights.final_norm.weight.float().cpu().clone())
    weights = Weights(target.weights.embed, [block], final_norm, lm_head)
    return EagleHead(Transformer(config, weights, Ops()), matrix(len(taps) * h, h), ones(), target_ids, taps)


def head_config(target: ModelConfig, intermediate_size: int) -> ModelConfig:
    """Return the sizes of a head for a model: one Llama layer with its heads and positions."""
    return ModelConfig(
        family="llama",
        vocab_size=target.vocab_size,
        hidden_size=target.hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=1,
        num_attention_heads=target.num_attention_heads,
        num_key_value_heads=target.num_key_value_heads,
        head_dim=target.head_dim,
        max_position_embeddings=target.max_position_embeddings,
        rope=RopeConfig(theta=target.rope.theta if target.rope is not None else RopeConfig.theta),
        norm_eps=target.norm_eps,
        bos_token_id=target.bos_token_id,
        eos_token_ids=target.eos_token_ids,
        dtype="bfloat16",
    )


def parameters(head: EagleHead) -> list[Tensor]:
    """Return the tensors of a head that are trained: all but the embedding, which is the model's."""
    own = replace(head.decoder.weights, embed=None)  # type: ignore[arg-type]
    return [*tensors_of(own), *tensors_of(head.fc), *tensors_of(head.hidden_norm)]


class Unrolled:
    """The keys and values of all passes over R windows of N positions: the mask of the training-time test."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []  # per pass [R, N, H_kv, D]
        self.values: list[Tensor] = []

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, batch: Batch) -> Tensor:
        """Return the attention of the newest pass: q [R * N, H, D], k and v [R * N, H_kv, D]."""
        num_windows, (_, num_kv, size) = len(batch.chunks), k.shape
        queries = q.view(num_windows, -1, num_kv, q.shape[1] // num_kv, size)  # [R, N, H_kv, G, D]
        self.keys.append(k.view(num_windows, -1, num_kv, size))
        self.values.append(v.view(num_windows, -1, num_kv, size))
        num_positions = queries.shape[1]
        scores = torch.einsum("rnkgd,rmkd->rkgnm", queries, self.keys[0])
        unseen = ~causal_mask(num_positions, num_positions, None, q.device)
        own = [torch.einsum("rnkgd,rnkd->rkgn", queries, keys)[..., None] for keys in self.keys[1:]]
        scores = torch.cat((scores.masked_fill(unseen, float("-inf")), *own), -1) / math.sqrt(size)
        weights = scores.softmax(-1)  # [R, H_kv, G, N, N + passes - 1]
        out = torch.einsum("rkgnm,rmkd->rnkgd", weights[..., :num_positions], self.values[0])
        for i, values in enumerate(self.values[1:]):
            out = out + weights[..., num_positions + i].permute(0, 3, 1, 2)[..., None] * values[:, :, :, None]
        return out.reshape(q.shape)


@dataclass(frozen=True)
class Reading:
    """Hidden states of texts: after the layers that the head reads, and the last ones, which give the logits."""

    token_ids: Tensor  # [R, S] int64
    taps: tuple[Tensor, ...]  # each [R, S, hidden]
    last: Tensor  # [R, S, hidden]

    @classmethod
    def of(
        cls,
        target: Transformer,
        token_ids: Tensor,
        taps: Sequence[int],
        dtype: torch.dtype = torch.float32,
        at_once: int = 8,
    ) -> "Reading":
        """Return the reading of texts [R, S], with its states in `dtype` on the CPU."""
        parts, length = list[tuple[Tensor, ...]](), token_ids.shape[1]
        for rows in token_ids.split(at_once):
            batch = Batch.of([Chunk(row, 0, [0]) for row in rows.tolist()], length, target.device)
            hidden = target.hidden_states(batch, NoCache(target.config, length), taps)
            # A clone made outside of inference mode can be used in training.
            parts.append(tuple(one.to("cpu", dtype).clone() for one in (*hidden.taps, hidden.last)))
        states = [torch.cat(one).view(*token_ids.shape, -1) for one in zip(*parts, strict=True)]
        return cls(token_ids, tuple(states[:-1]), states[-1])

    def to(self, dtype: torch.dtype) -> "Reading":
        """Return the reading with its states in `dtype`."""
        return replace(self, taps=tuple(tap.to(dtype) for tap in self.taps), last=self.last.to(dtype))

    def window(self, rows: Tensor | slice, positions: slice) -> "Reading":
        """Return the reading of these positions of these texts."""

        def cut(states: Tensor) -> Tensor:
            return states[rows, positions]

        return Reading(cut(self.token_ids), tuple(map(cut, self.taps)), cut(self.last))


def unroll(head: EagleHead, text: Reading, num_passes: int) -> Iterator[Tensor]:
    """Yield the logits of each pass, [R, N, draft vocabulary] for N = S - num_passes positions.

    Entry t of pass j is about token t + 2 + j.
    """
    length = text.token_ids.shape[1] - num_passes
    features, cache = head.fuse([states[:, :length].flatten(0, 1) for states in text.taps]), Unrolled()
    for j in range(num_passes):
        rows = text.token_ids[:, 1 + j : 1 + j + length].tolist()
        batch = Batch.of([Chunk(row, j, [0]) for row in rows], text.token_ids.shape[1])
        x, features = head(batch, features, cache)
        yield head.logits(x).view(len(rows), length, -1)


def loss_of(head: EagleHead, target: Transformer, text: Reading, num_passes: int, decay: float) -> Tensor:
    """Return the mean loss of the texts over positions and passes, of which pass j counts `decay` ** j times."""
    logits = target.logits(text.last.to(target.device, target.dtype)).cpu().clone()  # [R, S, vocabulary]
    known = torch.zeros(logits.shape[-1], dtype=torch.bool)
    known[head.target_ids] = True
    losses, weights = [], [decay**j for j in range(num_passes)]
    for j, found in enumerate(unroll(head, text, num_passes)):
        wanted = logits[:, 1 + j : 1 + j + found.shape[1]]
        counts = known[wanted.argmax(-1)]  # [R, N]
        p = wanted[..., head.target_ids].softmax(-1)
        losses.append((-(p * F.log_softmax(found, -1)).sum(-1) * counts).mean())
    return (torch.stack(losses) * torch.tensor(weights)).sum() / sum(weights)


def acceptance(head: EagleHead, target: Transformer, token_ids: Tensor, num_drafts: int) -> list[float]:
    """Return, for each draft of a chain, the share of chains in which it and all drafts before it are in the text."""
    with torch.no_grad():
        text = Reading.of(target, token_ids, head.taps).window(slice(None), slice(-1))
        right, shares = torch.ones((), dtype=torch.bool), []
        for j, logits in enumerate(unroll(head, text, num_drafts)):
            drafts = head.target_ids[logits.argmax(-1)]
            right = right & (drafts == token_ids[:, 2 + j : 2 + j + drafts.shape[1]])
            shares.append(right.float().mean().item())
    return shares


def train(
    target: Transformer,
    texts: Sequence[Sequence[int]],
    training: Training,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> EagleHead:
    """Return a head for `target`, trained on `texts`, and call `progress(steps done, loss)` after each step.

    The texts have one length. The model reads each of them once, and what it computes is kept in bfloat16. The same
    texts, numbers and threads give the same head.
    """
    vocab_size = target.config.vocab_size
    ids = most_frequent(texts, min(training.draft_vocab_size, vocab_size), vocab_size)
    head = new_head(target, ids, training)
    reading = Reading.of(target, torch.tensor(texts), head.taps, torch.bfloat16)
    weights = parameters(head)
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=training.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    generator = torch.Generator().manual_seed(training.seed)
    for step in range(training.num_steps):
        done = step / training.num_steps
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * schedule(done)
        text = draw(reading, training, generator).to(torch.float32)
        loss = loss_of(head, target, text, num_passes_at(done, training.num_passes), training.decay)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        progress(step + 1, loss.item())
    for weight in weights:
        weight.requires_grad_(False)
    return head


def num_passes_at(done: float, most: int) -> int:
    """Return how many passes to compute after this share of the steps: one in the first half, then more and more.

    One pass is the fastest, and teaches most of what there is to learn.
    """
    return 1 + int(max(0.0, 2 * done - 1) * most)


def schedule(done: float) -> float:
    """Return the factor on the learning rate: up in the first 5 %, flat, and straight down in the last half."""
    return min(1.0, done / 0.05 + 0.02, 2 * (1 - done) + 0.02)


def draw(reading: Reading, training: Training, generator: torch.Generator) -> Reading:
    """Return a window of random texts, [num_windows, window], at a random place."""
    num_texts, length = reading.token_ids.shape
    rows = torch.randint(num_texts, (training.num_windows,), generator=generator)
    start = int(torch.randint(length - training.window + 1, (), generator=generator))
    return reading.window(rows, slice(start, start + training.window))
