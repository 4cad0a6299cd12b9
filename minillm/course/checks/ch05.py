"""Chapter 05, FlashAttention: its exercises' checks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch05 import JOIN, MERGE, TILED_ATTENTION, WALK
from minillm.ops import attend, causal_mask

Sums = tuple[Tensor, Tensor, Tensor]  # m, l, acc


# --- 05.1 merge ---


def right_merge(m_a: Tensor, l_a: Tensor, acc_a: Tensor, m_b: Tensor, l_b: Tensor, acc_b: Tensor) -> Sums:
    m = torch.maximum(m_a, m_b)
    base = m.masked_fill(m == -torch.inf, 0.0)
    fade_a, fade_b = torch.exp(m_a - base), torch.exp(m_b - base)
    return m, l_a * fade_a + l_b * fade_b, acc_a * fade_a[:, None] + acc_b * fade_b[:, None]


def half(seed: int, top: Sequence[float], keys: int = 4, values: float = 1.0) -> Sums:
    """Return m, l and acc of rows with these largest scores. A row with -inf has no keys."""
    m = torch.tensor(top)
    scores = torch.cat([torch.zeros(len(m), 1), -expect.randn(len(m), keys, seed=seed).abs()], 1)
    p = torch.exp(scores).masked_fill((m == -torch.inf)[:, None], 0.0)
    return m, p.sum(-1), p @ (values * expect.randn(keys + 1, 3, seed=seed + 50))


def relative_to(m: Tensor) -> Callable[..., Sums]:
    """Return a merge that uses `m` as the maximum of both halves."""

    def merge(*halves: Tensor) -> Sums:
        right, l, acc = right_merge(*halves)
        return m, l * torch.exp(right - m), acc * torch.exp(right - m)[:, None]

    return merge


def merge_mistakes(*halves: Tensor) -> dict[str, Sums]:
    m_a, l_a, acc_a, m_b, l_b, acc_b = halves
    m, l, acc = right_merge(*halves)
    rise_a, rise_b = torch.exp(m - m_a), torch.exp(m - m_b)
    return {
        "each sum is relative to its own maximum. Multiply the sums by exp(m_a - m) and exp(m_b - m) before "
        "you add them": (m, l_a + l_b, acc_a + acc_b),
        "l is rescaled, but acc is not. acc is a sum of exp(score - m) too": (m, l, acc_a + acc_b),
        "acc is rescaled, but l is not. l is a sum of exp(score - m) too": (m, l_a + l_b, acc),
        "the rescaling is the wrong way round. To get from exp(score - m_a) to exp(score - m), multiply by "
        "exp(m_a - m), which is at most 1": (
            m,
            l_a * rise_a + l_b * rise_b,
            acc_a * rise_a[:, None] + acc_b * rise_b[:, None],
        ),
        "acc is divided already, so it cannot be added to a third part. Divide only once, at the end": (
            (m, l, acc / l[:, None])
        ),
        "m is the smaller of the two maxima, so exponents above 0 remain and overflow. Take the larger one": (
            relative_to(torch.minimum(m_a, m_b))(*halves)
        ),
        "the second half's maximum is used for both halves. The first half's maximum may be larger": (
            relative_to(m_b)(*halves)
        ),
    }


def check_merge(merge: Answer, a: Sums, b: Sums, mistakes: Mapping[str, Sums] | None = None) -> None:
    """Compare the merge of two halves with the right one. A mistake gives all of m, l and acc."""
    value, right = merge(*a, *b), right_merge(*a, *b)
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise Wrong(f"merge returns {value!r:.60}; it should return (m, l, acc)")
    for part, correct, name in zip(value, right, ("m", "l", "acc"), strict=True):
        axes = "R D" if name == "acc" else "R"
        expect.tensor(part, correct.shape, axes, torch.float32, name)
    for message, mistaken in (mistakes or {}).items():
        if all(
            torch.allclose(x, y, 1e-4, 1e-4, equal_nan=True) for x, y in zip(value, mistaken, strict=True)
        ):
            raise Wrong(message)
    empty = right[0] == -torch.inf
    for part, correct, name in zip(value, right, ("m", "l", "acc"), strict=True):
        if empty.any() and not torch.equal(part[empty], correct[empty]):
            raise Wrong(
                f"where both halves are empty, m stays -inf, and l and acc stay 0. Your {name} is "
                f"{part[empty].flatten()[0].item()}. -inf - (-inf) is NaN, so subtract 0 where the maximum is "
                "-inf"
            )
        if not part[~empty].isfinite().all():
            raise Wrong(
                f"{name} has NaN or infinity: exp of the maximum itself overflows or becomes 0. Compute only "
                "exp(m_a - m) and exp(m_b - m). For an empty half, exp(-inf - m) is 0"
            )
        expect.close(part[~empty], correct[~empty], "R D" if name == "acc" else "R", name=name)


@MERGE.part("two halves of a row", points=2)
def merge_two(merge: Answer) -> None:
    a, b = half(0, [3.0, 0.2, 1.0, -2.0]), half(1, [-0.5, 3.0, 0.4, -1.0])
    check_merge(merge, a, b, merge_mistakes(*a, *b))
    check_merge(merge, half(2, [5.0, -20.0, 0.0]), half(3, [-10.0, -9.0, -12.0], values=1e5))


@MERGE.part("empty halves next to others", points=1)
def merge_empty(merge: Answer) -> None:
    none, some = -torch.inf, 1.0
    for top_a, top_b in (([some] * 3, [none] * 3), ([none] * 3, [some] * 3), ([none] * 3, [none] * 3)):
        check_merge(merge, half(4, top_a), half(5, top_b))
    check_merge(merge, half(6, [none, 2.0, none, -1.0, none]), half(7, [1.0, none, none, 2.0, -3.0]))


@MERGE.part("scores in the thousands", points=1)
def merge_large(merge: Answer) -> None:
    tops = [3000.0, -4000.0, 2000.0, -4000.0, -torch.inf], [2999.0, -4001.0, -2000.0, -torch.inf, -4000.0]
    check_merge(merge, half(8, tops[0]), half(9, tops[1]))
    check_merge(merge, half(8, tops[1]), half(9, tops[0]))


@MERGE.part("many parts, in any order", points=1)
def merge_many(merge: Answer) -> None:
    pieces = [half(seed, [seed % 3 - 1.0, -seed / 2, 4.0 - seed], keys=2) for seed in range(5)]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        whole = half(0, [-torch.inf] * 3)
        for i in order:
            check_merge(merge, whole, pieces[i])
            whole = right_merge(*whole, *pieces[i])


# --- 05.2 tiled attention ---


def seen_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float | None = None) -> Tensor:
    """Return the attention of q [T, H, D] over those of k and v [S, H, D] for which `seen` [T, S] is true."""
    scores = torch.einsum("thd,shd->hts", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return torch.einsum("hts,shd->thd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)


def walked(q: Tensor, k: Tensor, v: Tensor, block: int, *forgotten: str) -> Tensor:
    """Return causal attention over tiles of `block` keys, without the steps that are `forgotten`: "acc", "l" or "/"."""
    seen = causal_mask(len(q), len(k), None, q.device)
    scores = torch.einsum("thd,shd->ths", q, k) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~seen[:, None], -torch.inf)
    m = torch.full(q.shape[:2], -torch.inf)
    l, acc = torch.zeros_like(m), torch.zeros_like(q)
    for start in range(0, len(k), block):
        tile = scores[..., start : start + block]
        new_m = torch.maximum(m, tile.amax(-1))
        p, fade = torch.exp(tile - new_m[..., None]), torch.exp(m - new_m)
        l = p.sum(-1) + (l if "l" in forgotten else l * fade)
        part = torch.einsum("ths,shd->thd", p, v[start : start + block])
        acc = part + (acc if "acc" in forgotten else acc * fade[..., None])
        m = new_m
    return acc if "/" in forgotten else acc / l[..., None]


def averaged(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    """Return the mean of the softmaxes over each tile that a query sees."""
    seen, tiles = causal_mask(len(q), len(k), None, q.device), torch.arange(len(k)) // block
    each = [
        seen_attention(q, k, v, seen & (tiles == tile)).nan_to_num(0.0) for tile in range(int(tiles[-1]) + 1)
    ]
    num_seen = seen.sum(1).sub(1).div(block, rounding_mode="floor") + 1
    return torch.stack(each).sum(0) / num_seen[:, None, None]


def seen_by(sees: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """Return attention in which sees(key, position, end of the query's tile, block) says which keys are seen."""

    def attention(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
        past = len(k) - len(q)
        position = past + torch.arange(len(q))[:, None]
        ends = (past + (position - past) // block * block + block).clamp_max(len(k))
        seen = sees(torch.arange(len(k)), position, ends, block)
        return seen_attention(q, k, v, seen.expand(len(q), len(k)))

    return attention


def right_tiled(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    return attend(q, k, v, None)


TILED_MISTAKES = {
    "a query sees later tokens: there is no mask": seen_by(lambda key, i, end, block: key >= 0),
    "later tiles are skipped, but in the tile on the diagonal a query sees later keys. Mask them": seen_by(
        lambda key, i, end, block: key < -(-end // block) * block
    ),
    "l is rescaled, but acc is not. Both are sums relative to the old maximum": (
        lambda q, k, v, block: walked(q, k, v, block, "acc")
    ),
    "acc is rescaled, but l is not. Both are sums relative to the old maximum": (
        lambda q, k, v, block: walked(q, k, v, block, "l")
    ),
    "the sums are never divided by l. Divide acc by l at the end": lambda q, k, v, block: walked(
        q, k, v, block, "/"
    ),
    "each tile of keys has a softmax of its own, and the results are averaged. A tile with larger scores "
    "must have a larger weight": averaged,
    "the scores are not divided by sqrt(D)": (
        lambda q, k, v, block: seen_attention(q, k, v, causal_mask(len(q), len(k), None, q.device), 1.0)
    ),
}
AFTER_A_CACHE = {
    "the first query is put at the first key. The last query belongs to the last key": (
        lambda q, k, v, block: attend(q, k[: len(q)], v[: len(q)], None)
    ),
    "the last, smaller tile of keys is left out. S need not be a multiple of `block`": seen_by(
        lambda key, i, end, block: (key <= i) & (key < end // block * block)
    ),
}


def rows(num_queries: int, num_keys: int, heads: int = 2, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k and v of the last `num_queries` of `num_keys` tokens."""
    q = expect.randn(num_queries, heads, width, seed=0) * 2
    return q, expect.randn(num_keys, heads, width, seed=1), expect.randn(num_keys, heads, width, seed=2)


def check_tiled(
    attention: Answer, sizes: Sequence[tuple[int, int, int]], mistakes: Mapping[str, Callable[..., Tensor]]
) -> None:
    """Compare for each (T, S, block), and refuse torch's own attention."""

    def by_hand(*args: Any) -> Any:
        with expect.without(
            "attention", "torch's own attention does the whole exercise. Compute the tiles yourself"
        ):
            return attention(*args)

    cases = [(*rows(num_queries, num_keys), block) for num_queries, num_keys, block in sizes]
    expect.cases(by_hand, right_tiled, cases, axes="T H D", tolerance=1e-3, mistakes=mistakes)


@TILED_ATTENTION.part("a prompt, in whole tiles", points=1)
def tiled_prompt(attention: Answer) -> None:
    check_tiled(attention, [(16, 16, 4)], TILED_MISTAKES)


@TILED_ATTENTION.part("after a cache, and the last tiles smaller", points=1)
def tiled_ragged(attention: Answer) -> None:
    check_tiled(attention, [(9, 14, 4), (1, 7, 4), (5, 5, 8), (7, 11, 3)], TILED_MISTAKES | AFTER_A_CACHE)


@TILED_ATTENTION.part("scores in the thousands, of either sign", points=1)
def tiled_large(attention: Answer) -> None:
    # The keys fall from 3000 to -3000, and the queries' signs differ from row to row and from head to head.
    sign = torch.tensor([1.0, -1.0]).repeat(6)[:, None] * torch.tensor([1.0, -1.0])
    q, v = sign[..., None].expand(12, 2, 4).contiguous(), expect.randn(12, 2, 4, seed=3)
    k = torch.linspace(3000, -3000, 12)[:, None, None].expand(12, 2, 4).contiguous()
    for block, why in (
        (
            12,
            "subtract from each score the largest of its own row and head, and compute exp of the difference "
            "only",
        ),
        (
            3,
            "a tile with lower scores must not lower the maximum, or exp(old m - new m) overflows",
        ),
    ):
        out = attention(q, k, v, block)
        expect.tensor(out, q.shape, "T H D", torch.float32)
        expect.that(
            bool(out.isfinite().all()),
            f"the result has NaN or infinity with scores of ±3,000 in tiles of {block}: {why}",
        )
        expect.close(out, attend(q, k, v, None), "T H D")


def added_memory(attention: Answer, q: Tensor, k: Tensor, v: Tensor, block: int) -> int:
    """Return the bytes that the call needs at once beyond its arguments, or 0 if the system cannot measure them."""
    out, added = expect.peak_of(
        lambda: attention(q[:block], k[: 2 * block], v[: 2 * block], block), lambda: attention(q, k, v, block)
    )
    expect.close(out, attend(q, k, v, None), "T H D")
    return added


@TILED_ATTENTION.part("the matrix of scores is never there", points=1, alone=True)
def tiled_no_matrix(attention: Answer) -> None:
    matrix = 1024 * 1024 * 4 * 4
    if added_memory(attention, *rows(1024, 1024, heads=4), 64) > matrix / 3:
        raise Wrong(
            "for 1,024 tokens, the call needs more than a third of the memory of the whole matrix of scores, "
            f"which is {matrix / 1e6:.0f} MB. A tile of 64 × 64 scores takes 0.07 MB: keep only one at a time"
        )


@TILED_ATTENTION.part("nor are whole rows of it", points=1, alone=True)
def tiled_no_rows(attention: Answer) -> None:
    whole = 64 * 2**13 * 8 * 4
    if added_memory(attention, *rows(64, 2**13, heads=8), 256) > whole / 3:
        raise Wrong(
            "for 64 queries over 8,192 keys, the call holds whole rows of scores, which take "
            f"{whole / 1e6:.0f} MB. Cut the keys into tiles too, and keep m, l and acc from one tile to the "
            "next"
        )


@TILED_ATTENTION.part("each visible tile is computed once, and no other", points=2)
def tiled_skips(attention: Answer) -> None:
    n, block = 256, 64
    q, k, v = rows(n, n)
    right = attend(q, k, v, None)[: n - block]
    v[-1] = torch.nan  # a query that computes with it, if only with a weight of 0, gets NaN
    with expect.counted() as ran:
        out = attention(q, k, v, block)
    expect.tensor(out, [n, 2, 8], "T H D", torch.float32)
    if out[: n - block].isnan().any():
        raise Wrong(
            "the last value is multiplied by a weight of 0 for queries of earlier tiles, which cannot see "
            f"it. End the inner loop at the last key that a tile of {block} queries sees"
        )
    expect.close(out[: n - block], right, "T H D")
    # Four tiles of queries see ten tiles of keys. Our loop runs 130 operators per tile, and twice as many head by head.
    calls = sum(ran.operators.values())
    expect.that(
        calls <= 10 * 600,
        f"{calls:,} torch operators run for 10 tiles of {block} × {block} scores. Compute {block} queries × "
        f"{block} keys at a time, not single queries or keys: each tile of keys is read once for all queries "
        "of a tile",
    )


# --- 05.3 join ---


def right_join(parts: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    there = lse > -torch.inf
    weight = lse.softmax(0).masked_fill(~there, 0.0)
    written = torch.where(there[..., None], parts, 0.0)
    return torch.einsum("phd,ph->hd", written, weight), lse.logsumexp(0)


def stretches(tops: Sequence[Sequence[float]], junk: float = torch.nan) -> tuple[Tensor, Tensor]:
    """Return parts [P, H, D] and lse [P, H] near these. If lse is -inf, the part's rows hold `junk`."""
    lse = torch.tensor(tops)
    lse = lse + expect.randn(*lse.shape, seed=1)
    parts = expect.randn(*lse.shape, 4, seed=2)
    return parts.masked_fill((lse == -torch.inf)[..., None], junk), lse


def check_join(
    join: Answer, parts: Tensor, lse: Tensor, mistakes: Mapping[str, Tensor] | None = None, why: str = ""
) -> None:
    """Compare the attention [H, D] and log-sum-exp [H]. `mistakes` are of the attention; `why` explains NaN."""
    value, right = join(parts, lse), right_join(parts, lse)
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise Wrong(
            f"join returns {value!r:.60}; it should return the attention [H, D] and its log-sum-exp [H]"
        )
    out, total = value
    expect.tensor(out, right[0].shape, "H D", torch.float32, "the attention")
    expect.tensor(total, right[1].shape, "H", torch.float32, "the log-sum-exp")
    wrong = {
        "the log-sum-exp is the largest of the parts'. It must be the log of the sum of all parts": lse.amax(
            0
        ),
        "the parts' log-sum-exps are added, which gives the log of the product of the sums. Add the sums "
        "exp(lse), then take the log": lse.sum(0),
    }
    empty = right[1] == -torch.inf
    expect.that(not (out.isnan().any() or total.isnan().any()), f"the result has NaN: {why}")
    expect.close(out, right[0], "H D", mistakes=mistakes, name="the attention")
    expect.that(
        bool((total[empty] == -torch.inf).all()),
        "where no part has a key, the log-sum-exp must be -inf, the log of 0",
    )
    seen = {
        text: x[~empty] for text, x in wrong.items() if not torch.allclose(x[~empty], right[1][~empty], 1e-3)
    }
    expect.close(total[~empty], right[1][~empty], "H", mistakes=seen, name="the log-sum-exp")


@JOIN.part("three stretches", points=2)
def join_three(join: Answer) -> None:
    parts, lse = stretches([[0.0, 2.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.5]])
    mistakes = {
        "all parts have the same weight. The weight of a part must be its share of the sum of exp(lse)": parts.mean(
            0
        ),
        "the parts are added up. Each part is a finished average, so compute their weighted average": parts.sum(
            0
        ),
        "the softmax of the weights runs over the heads. It must run over the parts": torch.einsum(
            "phd,ph->hd", parts, lse.softmax(1)
        ),
        "the weights do not sum to 1. Divide them by their sum": torch.einsum(
            "phd,ph->hd", parts, torch.exp(lse - lse.amax(0))
        ),
    }
    check_join(join, parts, lse, mistakes)


NONE = -torch.inf


@JOIN.part("a stretch without keys", points=1)
def join_empty(join: Answer) -> None:
    why = (
        "where a part has no keys, its rows were never written, and 0 times NaN or infinity is NaN. Put 0 into those "
        "rows before you multiply"
    )
    for junk in (torch.nan, torch.inf, -torch.inf, 1e30):
        for tops in (
            [[0.0, 1.0], [2.0, 0.0], [NONE] * 2, [NONE] * 2],
            [[NONE] * 2, [1.0, 2.0]],
            [[0.5, -1.0]],
        ):
            check_join(join, *stretches(tops, junk), why=why)
        # Heads may differ in their keys, as with a sliding window.
        check_join(join, *stretches([[0.0, NONE, 1.0], [NONE, 1.0, 0.0], [2.0, 0.0, NONE]], junk), why=why)


@JOIN.part("log-sum-exps in the thousands", points=1)
def join_large(join: Answer) -> None:
    why = (
        "with log-sum-exps in the thousands, exp(lse) is infinite or 0. Only differences matter, so subtract the "
        "largest first"
    )
    for tops in ([[3000.0, -3000.0], [3001.0, -3001.0]], [[-5000.0, 4000.0], [-2000.0, -4000.0]]):
        parts, lse = stretches(tops)
        check_join(join, parts, lse, {f"0: {why}": torch.zeros_like(parts[0])}, why)


@JOIN.part("no keys at all", points=1)
def join_nothing(join: Answer) -> None:
    why = "where there are no keys in any part, the sum of the weights is 0. The result must be 0 there"
    for tops in ([[0.0, NONE, 1.0], [1.0, NONE, 2.0]], [[NONE] * 3] * 2):
        check_join(join, *stretches(tops), why=why)


# --- 05.4 walk ---


def run_walk(
    walk: Answer, q: Tensor, k: Tensor, v: Tensor, block_m: int, block_n: int
) -> tuple[Tensor, Tensor, int]:
    """Run the kernel with this loop on q, k and v. Return out and lse, and the bytes of K and V that it loaded."""
    from triton.runtime.errors import InterpreterError

    from minillm.course.checks.ch05_kernel import attention_by
    from minillm.course.tools.interpreter import watching

    num_keys = len(k)
    owned = [(x.data_ptr(), x.data_ptr() + x.nbytes) for x in (k, v)]
    own_q = (q.data_ptr(), q.data_ptr() + q.nbytes)
    moved = 0

    def watch(kind: str, addresses: Any, size: int) -> None:
        nonlocal moved
        if kind == "store" or addresses.size == 0:
            return
        low, high = int(addresses.min()), int(addresses.max()) + size
        inside = [low >= begin and high <= end for begin, end in [*owned, own_q]]
        if not any(inside):
            raise Wrong(
                f"with {num_keys} keys in tiles of {block_n}, the loop reads memory outside the tensors: the "
                "rows from num_keys on do not exist. Load with mask=j[:, None] < num_keys, other=0"
            )
        if any(inside[:2]):
            moved += addresses.size * size

    try:
        with watching(watch):
            out, lse = attention_by(_three(walk, block_m), q, k, v, block_m, block_n)
    except InterpreterError as error:  # wraps the real error, once per function that it passed
        cause: BaseException = error
        while isinstance(cause, InterpreterError) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise cause from None
    return out, lse, moved


def _three(walk: Answer, block_m: int) -> Callable[..., Any]:
    """Return `walk` with a check of its results."""

    def checked(*args: Any) -> Any:
        value = walk(*args)
        if not isinstance(value, tuple | list) or len(value) != 3:
            raise Wrong(f"walk returns {value!r:.60}; it should return acc, m and l")
        for name, part, wanted in zip(
            ("acc", "m", "l"), value, ([block_m, 32], [block_m], [block_m]), strict=True
        ):
            shape = [int(size) for size in getattr(part, "shape", [])]
            if shape != wanted:
                raise Wrong(f"{name} has shape {shape}; it should be {wanted}")
            if str(part.dtype) != "fp32":
                raise Wrong(f"{name} is {part.dtype}; it should be float32, whatever the dtype of q, k and v")
        if (value[2].handle.data == 0).any():
            raise Wrong(
                "l is 0 for some queries. Either no key was added: they also see the keys from `first` on, "
                "up to their own. Or m did not begin at -inf, and is above all scores"
            )
        return tuple(value)

    return checked


def head(num_keys: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return q, k and v [num_keys, 32]."""
    return [(expect.randn(num_keys, 32, seed=seed) * 2).to(dtype) for seed in range(3)]


def check_walk(walk: Answer, given: list[Tensor], block_m: int, block_n: int, loose: float = 1e-4) -> None:
    q, k, v = given
    out, lse, _ = run_walk(walk, q, k, v, block_m, block_n)
    q, k, v = (x.float()[:, None] for x in given)  # one head
    num_keys, scale = len(k), q.shape[-1] ** -0.5
    key, position = torch.arange(num_keys), torch.arange(num_keys)[:, None]
    tile_end = position // block_m * block_m + block_m
    causal = key <= position
    last = (torch.minimum(tile_end, torch.tensor(num_keys)) - 1) // block_n
    if out[0].isnan().all() and not out[1:].isnan().any():
        raise Wrong("the first query gets NaN: it does not see its own key. Query i sees the keys j <= i")
    mistakes = {
        "a query sees the later keys of its tile. Set the score to -inf where j > i": seen_attention(
            q, k, v, key < -(-tile_end // block_n) * block_n
        ),
        "acc is not multiplied by exp(m - new_m) before a tile is added": walked(q, k, v, block_n, "acc"),
        "l is not multiplied by exp(m - new_m) before a tile is added": walked(q, k, v, block_n, "l"),
        "only the last tile counts. At the end of each turn m must become new_m; otherwise the next factor "
        "exp(m - new_m) is 0": (seen_attention(q, k, v, causal & (key // block_n == last))),
        "the scores are not multiplied by `scale`": seen_attention(q, k, v, causal, 1.0),
        "a query does not see its own key. Query i sees the keys j <= i": seen_attention(
            q, k, v, key < position
        ),
    }
    right = seen_attention(q, k, v, causal)
    shown = {
        text: x[:, 0]
        for text, x in mistakes.items()
        if not torch.allclose(x, right, 1e-2, 1e-2, equal_nan=True)
    }
    expect.close(out.float(), right[:, 0], "S D", tolerance=loose, mistakes=shown, name="acc / l")
    scores = (q[:, 0] @ k[:, 0].T).masked_fill(~causal, -torch.inf)
    tops = scores.amax(-1)
    right_lse = (scores * scale).logsumexp(-1)
    unscaled = {
        "m is that of the unscaled scores. Return the maximum of the scaled scores, because m + log(l) is "
        "stored": (right_lse - tops * scale + tops),
        "m is in units of log 2. Return it times log(2), because m + log(l) is stored": (
            right_lse + tops * scale * (1.4426950408889634 - 1)
        ),
    }
    seen = {text: x for text, x in unscaled.items() if not torch.allclose(x, right_lse, 1e-3, 1e-3)}
    expect.close(lse, right_lse, "S", mistakes=seen, name="m + log(l)")


@WALK.part("one tile of keys", points=1)
def walk_one(walk: Answer) -> None:
    check_walk(walk, head(16), 16, 16)


@WALK.part("many tiles, in either dtype", points=2)
def walk_many(walk: Answer) -> None:
    check_walk(walk, head(64), 16, 16)
    check_walk(walk, head(48), 32, 16)
    check_walk(walk, head(64, torch.float16), 16, 32, loose=2e-3)
    # After the first tile, each tile adds less than half of float16's spacing at l: a sum in float16 does not change.
    q, k, v = (torch.zeros(128, 32, dtype=torch.float16) for _ in range(3))
    q[:, 0], k[16:, 0], v[:] = 1.0, -43.5, 1.0
    check_walk(walk, [q, k, v], 32, 16, loose=1e-3)


@WALK.part("lengths that no tile divides, and scores far below 0", points=2)
def walk_ragged(walk: Answer) -> None:
    for num_keys, block_m, block_n in ((50, 16, 32), (5, 16, 16), (33, 32, 16)):
        check_walk(walk, head(num_keys), block_m, block_n)
    q, k, v = head(20)
    q[:, 0], k[:, 0] = 30.0, -30.0
    check_walk(walk, [q, k, v], 16, 16, loose=1e-3)


@WALK.part("the bytes of K and V that are loaded", points=1)
def walk_bytes(walk: Answer) -> None:
    num_keys, block_m, block_n = 100, 32, 16
    q, k, v = head(num_keys)
    *_, moved = run_walk(walk, q, k, v, block_m, block_n)
    row = 32 * 4
    needed = 0
    for first in range(0, num_keys, block_m):
        tiles = -(-min(first + block_m, num_keys) // block_n)
        needed += 2 * min(tiles * block_n, num_keys) * row
    if moved != needed:
        raise Wrong(
            f"{moved:,} bytes of K and V are loaded for {num_keys} tokens; the tiles that some query sees "
            f"have {needed:,}. Load each tile once per tile of queries, and none from first + BLOCK_M on"
        )
