"""Chapter 03, the KV cache: its exercises' checks."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.config import ModelConfig, RopeConfig
from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch03 import APPEND_MASK, CACHE_BYTES, CACHED_STEP, GROUPED_ATTENTION
from minillm.measure.known_models import KNOWN_MODELS
from minillm.model.rope import rope_table
from minillm.ops import attend, causal_mask, rope

HEADS, HEAD_DIM, ROW_LEN = 2, 8, 12
COS, SIN = rope_table(RopeConfig(), HEAD_DIM, ROW_LEN)


def turn(x: Tensor, position: int) -> Tensor:
    return rope(x, COS[position], SIN[position])


def attend_one(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Return the attention [H, D] of one query q [H, D] over all of k, v [s, H, D]."""
    scores = torch.einsum("hd,shd->hs", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return torch.einsum("hs,shd->hd", scores.softmax(-1), v)


def half_full(position: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return q, k, v of a token and the caches: rotated keys up to `position`, then the rows of another request."""
    q, k, v = (expect.randn(HEADS, HEAD_DIM, seed=seed) for seed in range(3))
    k_cache, v_cache = (expect.randn(ROW_LEN, HEADS, HEAD_DIM, seed=seed) for seed in (3, 4))
    k_cache[:position] = rope(k_cache[:position], COS[:position], SIN[:position])
    return q, k, v, k_cache, v_cache


@CACHED_STEP.part("the step's result", points=1)
def step_result(step: Answer) -> None:
    p = 5
    q, k, v, k_cache, v_cache = half_full(p)
    old_k, old_v = k_cache[:p].clone(), v_cache[:p].clone()
    left_k, left_v = k_cache[p:].clone(), v_cache[p:].clone()  # what another request left behind

    def mistake(
        q_at: int | None = p, new_k: Tensor | None = None, new_v: Tensor = v, old: Tensor = old_k
    ) -> Tensor:
        new_k = turn(k, p) if new_k is None else new_k
        query = q if q_at is None else turn(q, q_at)
        return attend_one(query, torch.cat([old, new_k[None]]), torch.cat([old_v, new_v[None]]))

    keys, values = torch.cat([old_k, turn(k, p)[None]]), torch.cat([old_v, v[None]])
    again = rope(old_k, COS[:p], SIN[:p])
    expect.close(
        step(q, k, v, k_cache, v_cache, p, COS, SIN),
        mistake(),
        "H D",
        mistakes={
            "q and k are rotated one position too far. The first token has position 0, so the token after 5 "
            "others has position 5": mistake(p + 1, turn(k, p + 1)),
            "q and k are rotated to the position before theirs. Use row `position` of cos and sin": mistake(
                p - 1, turn(k, p - 1)
            ),
            "the new token is rotated as if it were the first of the text. Tokens come before it in the "
            "cache, so use row `position` of cos and sin": mistake(0, turn(k, 0)),
            "the key goes into the cache without rotation. RoPE rotates q and k": mistake(p, k),
            "the key is rotated, but the query is not. RoPE rotates both": mistake(None),
            "neither q nor k is rotated. Call `rope(x, cos[position], sin[position])` for each": mistake(
                None, k
            ),
            "the value is rotated too. RoPE rotates only q and k": mistake(p, None, turn(v, p)),
            "the cached keys are rotated a second time. They were rotated when they were written": mistake(
                old=again
            ),
            "the new token does not see itself. Write its key and value to the cache first, then attend to "
            "rows 0 … position": attend_one(turn(q, p), old_k, old_v),
            "the result depends on rows that this request has never written. Attend to rows 0 … position only": (
                attend_one(turn(q, p), torch.cat([keys, left_k[1:]]), torch.cat([values, left_v[1:]]))
            ),
            "the new key and value are written to the wrong place. Token number `position` belongs in row "
            "`position`. Another request's data in that row was read": attend_one(
                turn(q, p),
                torch.cat([old_k, left_k[:1], turn(k, p)[None]]),
                torch.cat([old_v, left_v[:1], v[None]]),
            ),
            "the scores are not divided by sqrt(D)": attend_one(turn(q, p), keys, values, scale=1.0),
        },
    )


@CACHED_STEP.part("what the cache holds afterwards", points=1)
def step_cache(step: Answer) -> None:
    p = 5
    q, k, v, k_cache, v_cache = half_full(p)
    before_k, before_v = k_cache.clone(), v_cache.clone()
    step(q, k, v, k_cache, v_cache, p, COS, SIN)
    others = torch.arange(ROW_LEN) != p
    changed = (k_cache != before_k).flatten(1).any(1) | (v_cache != before_v).flatten(1).any(1)
    if not changed.any():
        raise Wrong(
            "after the step, the new key and value are not in the cache, so the next step will miss this "
            "token. Write them into row `position` of k_cache and v_cache"
        )
    if (changed & others).any():
        row = int((changed & others).nonzero()[0])
        raise Wrong(f"row {row} of the cache has changed. A step at position {p} writes row {p} only")
    expect.close(
        v_cache[p],
        v,
        "H D",
        name=f"v_cache[{p}]",
        mistakes={"v is rotated. RoPE rotates only q and k": turn(v, p)},
    )
    expect.close(
        k_cache[p],
        turn(k, p),
        "H D",
        name=f"k_cache[{p}]",
        mistakes={
            "the key is stored without rotation, so every later step would have to rotate it again. Rotate "
            "it before you store it": k
        },
    )


@CACHED_STEP.part("a text token by token equals the whole text at once", points=2)
def step_text(step: Answer) -> None:
    for heads, dim, junk in ((HEADS, HEAD_DIM, torch.nan), (3, 16, 1e4), (1, 6, torch.inf)):
        cos, sin = rope_table(RopeConfig(), dim, ROW_LEN)
        q, k, v = (expect.randn(ROW_LEN, heads, dim, seed=seed) for seed in range(5, 8))
        k_cache, v_cache = (torch.full((ROW_LEN, heads, dim), junk) for _ in range(2))
        steps = []
        for p in range(ROW_LEN):
            steps.append(step(q[p], k[p], v[p], k_cache, v_cache, p, cos, sin))
            expect.tensor(steps[-1], [heads, dim], "H D")
            expect.that(
                not steps[-1].isnan().any(),
                f"the result is NaN: the rows that are not written yet hold {junk}, and they are read. A mask "
                f"does not help, because 0 · {junk} is NaN. Cut the caches to rows 0 … position",
            )
        whole = attend(rope(q, cos, sin), rope(k, cos, sin), v, None)
        expect.close(torch.stack(steps), whole, "T H D", name=f"the text's attention, {heads} heads of {dim}")


def check_mask(mask: object, num_computed: int, num_tokens: int) -> None:
    """Raise Wrong for a wrong mask, and name the mistake."""
    n, s, case = num_tokens, num_computed + num_tokens, f"append_mask({num_computed}, {num_tokens})"
    expect.something(mask, case)
    if isinstance(mask, Tensor):
        if mask.is_floating_point():
            raise Wrong(
                f"{case} holds numbers to add to the scores. It should be a bool tensor, True where a token "
                "may look"
            )
        if num_computed and list(mask.shape) == [n, n]:
            raise Wrong(
                f"{case} has the shape [{n}, {n}], and so has no columns for the cached tokens. The new "
                "tokens see those too"
            )
        if num_computed and list(mask.shape) == [s, s]:
            raise Wrong(
                f"{case} has a row for every token of the text. Only the {n} new tokens need a row: the shape "
                f"should be [{n}, {s}]"
            )
    expect.tensor(mask, [n, s], "num_tokens num_computed+num_tokens", torch.bool, case)
    assert isinstance(mask, Tensor)
    right, ones = causal_mask(n, s, None, mask.device), torch.ones(n, s, dtype=torch.bool)
    past = torch.arange(s) < num_computed
    mistakes = {
        "the mask is True where a token must not look. It should be True where a token may look": ~right,
        "the triangle is anchored at the first key (top left), as if nothing were cached. The position of "
        f"row 0 is {num_computed}, not 0": ones.tril(),
        "a new token does not see itself. The position of row i is num_computed + i, and it sees that column "
        "too": ones.tril(num_computed - 1),
        "a new token sees one later token: the mask is off by one": ones.tril(num_computed + 1),
        "a new token sees the later tokens of its own chunk. Hide the columns after its own position": ones,
        "a new token does not see the cached tokens. It sees all of them": right & ~past,
    }
    for message, mistaken in mistakes.items():
        if not torch.equal(mistaken, right) and torch.equal(mask, mistaken):
            raise Wrong(f"{case}: {message}")
    if (wrong := (mask != right).nonzero()).numel():
        i, j = wrong[0].tolist()
        raise Wrong(
            f"{case}: row {i}, at position {num_computed + i}, {'sees' if mask[i, j] else 'does not see'} "
            f"token {j}"
        )


@APPEND_MASK.part("one new token sees all", points=1)
def mask_decode(append_mask: Answer) -> None:
    check_mask(append_mask(5, 1), 5, 1)


@APPEND_MASK.part("a chunk after a cache", points=2)
def mask_chunk(append_mask: Answer) -> None:
    for num_computed, num_tokens in ((3, 4), (1, 6), (40, 3), (17, 1), (2, 30)):
        check_mask(append_mask(num_computed, num_tokens), num_computed, num_tokens)


@APPEND_MASK.part("a prompt with nothing cached", points=1)
def mask_prompt(append_mask: Answer) -> None:
    check_mask(append_mask(0, 5), 0, 5)


@APPEND_MASK.part("any chunking gives the same attention", points=1)
def mask_chunkings(append_mask: Answer) -> None:
    q, k, v = (expect.randn(1, 2, 12, 8, seed=seed) for seed in range(3))  # [1, H, T, D]
    whole = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    for chunking in ([12], [1] * 12, [5, 4, 3], [1, 10, 1]):
        parts = []
        for end, n in zip(accumulate(chunking), chunking, strict=True):
            mask = append_mask(end - n, n)
            expect.tensor(mask, [n, end], "num_tokens num_computed+num_tokens", torch.bool, "the mask")
            parts.append(
                F.scaled_dot_product_attention(
                    q[:, :, end - n : end], k[:, :, :end], v[:, :, :end], attn_mask=mask
                )
            )
        expect.close(torch.cat(parts, 2)[0], whole[0], "H T D", name=f"the attention in chunks of {chunking}")


def grouped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    group = q.shape[0] // k.shape[1]
    return attend_one(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1))


@GROUPED_ATTENTION.part("each group of query heads shares a KV head", points=2)
def gqa_values(attention: Answer) -> None:
    num_kv, group, d = 2, 3, 8
    q = expect.randn(num_kv * group, d, seed=0)
    k, v = (expect.randn(9, num_kv, d, seed=seed) for seed in (1, 2))
    by_group = q.view(num_kv, group, d)
    over_group = (torch.einsum("kgd,skd->kgs", by_group, k) / d**0.5).softmax(1)
    mean = by_group.mean(1).repeat_interleave(group, 0)
    right = grouped(q, k, v)
    expect.close(
        attention(q, k, v),
        right,
        "H D",
        mistakes={
            "query head h uses KV head h % H_kv. It must use h // (H / H_kv), so that neighbours share a KV "
            "head": attend_one(q, k.repeat(1, group, 1), v.repeat(1, group, 1)),
            "all query heads of a group get the same result. They share K and V, but each has its own query": grouped(
                mean, k, v
            ),
            "the softmax runs over the heads. It must run over the tokens, so that the weights of each head "
            "sum to 1": torch.einsum("kgs,skd->kgd", over_group, v).reshape(q.shape),
            "the heads of the result are in the wrong order. The order of q is [H_kv, H / H_kv]": right.view(
                num_kv, group, d
            )
            .transpose(0, 1)
            .reshape(q.shape),
            "the scores are not divided by sqrt(D)": grouped(q * d**0.5, k, v),
            "the scores are divided by more than sqrt(D). D is the width of one head": grouped(
                q * (d / q.numel()) ** 0.5, k, v
            ),
        },
    )


@GROUPED_ATTENTION.part("a KV head for each query head, and one for all", points=1)
def gqa_ends(attention: Answer) -> None:
    q = expect.randn(4, 8, seed=3)
    for num_kv, kind in ((4, "MHA"), (1, "MQA")):
        k, v = (expect.randn(7, num_kv, 8, seed=seed) for seed in (4, 5))
        expect.close(attention(q, k, v), grouped(q, k, v), "H D", name=f"{kind} (H_kv = {num_kv})")


@GROUPED_ATTENTION.part("K and V are read where they are", points=2)
def gqa_memory(attention: Answer) -> None:
    num_kv, group, d = 2, 8, 64
    q = expect.randn(num_kv * group, d, seed=6)
    k, v = (expect.randn(2**12, num_kv, d, seed=seed) for seed in (8, 9))
    with expect.counted() as ran:
        out = attention(q, k, v)
    expect.close(out, grouped(q, k, v), "H D")
    # One copy each of K and V is allowed: a matmul may need one in another layout.
    expect.that(
        ran.allocated < 3 * k.nbytes,
        f"K or V is copied: the call makes tensors of {ran.allocated / k.nbytes:.1f} times the size of K, and "
        "the scores and weights need 0.4 times. repeat_interleave, repeat, indexing, a reshape after expand "
        "and a change of dtype all copy, even one piece at a time. Multiply with k and v as they are",
    )


SMALL = ModelConfig(
    family="llama",
    vocab_size=11,
    hidden_size=60,
    intermediate_size=64,
    num_hidden_layers=5,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=64,
    rope=RopeConfig(),
)


def check_bytes(value: object, config: ModelConfig, seq_lens: Sequence[int], bytes_per_element: int) -> None:
    tokens, layers, kv = sum(seq_lens), config.num_hidden_layers, config.kv_size
    right = 2 * layers * kv * tokens * bytes_per_element
    one = right // kv  # if a token had a single number for a key in each layer
    mistakes = {
        "a token has both a key and a value in the cache. Count twice as many numbers": right // 2,
        "K and V have num_key_value_heads heads. You count as many as query heads": one * config.q_size,
        "head_dim is not hidden_size / num_attention_heads in every model. Use config.head_dim": one
        * config.num_key_value_heads
        * (config.hidden_size // config.num_attention_heads),
        "every layer has its own keys and values. Multiply by the number of layers": right // layers,
        "the lengths of the requests add up. You count every request as long as the longest, as padding "
        "would make it": right // tokens * len(seq_lens) * max(seq_lens),
        "every number takes bytes_per_element bytes. An FP8 cache is half the size of an FP16 one": right
        // bytes_per_element
        * 2,
        "K and V do not take hidden_size numbers for each token. That is true only if every query head has "
        "its own KV head, as in GPT-2": one * config.hidden_size,
    }
    for message, mistaken in mistakes.items():
        if mistaken != right and value == mistaken:
            raise Wrong(message)
    expect.equal(value, right, "the cache")


@CACHE_BYTES.part("a small model, one request", points=1)
def bytes_small(cache_bytes: Answer) -> None:
    for num_kv in (2, 1, 6):
        config = replace(SMALL, num_key_value_heads=num_kv)
        for size in (1, 4):
            check_bytes(cache_bytes(config, [10], size), config, [10], size)


@CACHE_BYTES.part("requests of different lengths", points=1)
def bytes_lengths(cache_bytes: Answer) -> None:
    check_bytes(cache_bytes(SMALL, [10, 3, 1], 4), SMALL, [10, 3, 1], 4)
    expect.equal(cache_bytes(SMALL, [], 2), 0, "the cache of no requests")


@CACHE_BYTES.part("models that you know", points=1)
def bytes_known(cache_bytes: Answer) -> None:
    for name, config in KNOWN_MODELS.items():
        value = cache_bytes(config, [4096, 100], 2)
        expect.equal(value, config.kv_bytes_per_token(2) * 4196, f"the cache of {name}")
