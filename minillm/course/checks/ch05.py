"""Chapter 05, FlashAttention: its exercises' checks."""

from collections.abc import Callable
from itertools import pairwise
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


def sums(scores: Tensor, values: Tensor) -> Sums:
    """m, l and acc of rows with these scores [R, n] over values [n, D]; n may be 0."""
    m = scores.amax(-1) if scores.shape[1] else torch.full(scores.shape[:1], -torch.inf)
    p = torch.exp(scores - m[:, None])
    return m, p.sum(-1), p @ values


def check_sums(value: object, right: Sums, mistakes: dict[str, Sums]) -> None:
    """Refuse other sums than these; each mistake is what it makes of all three."""
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise Wrong(f"merge returns m, l and acc; yours returned {value!r:.60}")
    rows, width = right[2].shape
    for name, part, shape, axes in (
        ("m", value[0], [rows], "R"),
        ("l", value[1], [rows], "R"),
        ("acc", value[2], [rows, width], "R D"),
    ):
        expect.tensor(part, shape, axes, torch.float32, name)
    for message, mistaken in mistakes.items():
        if all(
            torch.allclose(a, b, 1e-4, 1e-4, equal_nan=True) for a, b in zip(value, mistaken, strict=True)
        ):
            raise Wrong(message)
    nothing = right[0] == -torch.inf
    if nothing.any():
        if any(part[nothing].isnan().any() for part in value):
            raise Wrong(
                "NaN where both halves are empty: -inf - (-inf) is NaN, so subtract 0 where the maximum is -inf"
            )
        if not (value[0][nothing] == -torch.inf).all():
            raise Wrong("where both halves are empty, m stays -inf")
    expect.close(value[0][~nothing], right[0][~nothing], "R", name="m")
    expect.close(value[1], right[1], "R", name="l")
    expect.close(value[2], right[2], "R D", name="acc")


def halves(size: float = 1.0) -> tuple[Tensor, Tensor, int]:
    """Scores [R, n], values [n, D] and where to cut n: in rows 0 and 1 the larger maximum is on either side."""
    scores, values = expect.randn(4, 9, seed=0), expect.randn(9, 3, seed=1)
    scores[0, 1], scores[1, 7] = 3.0, 3.0
    return scores * size, values, 5


@MERGE.part("two halves of a row", points=2)
def merge_two(merge: Answer) -> None:
    scores, values, cut = halves()
    a, b = sums(scores[:, :cut], values[:cut]), sums(scores[:, cut:], values[cut:])
    right = m, l, acc = sums(scores, values)
    (m_a, l_a, acc_a), (m_b, l_b, acc_b) = a, b
    added = m, l_a + l_b, acc_a + acc_b
    fades = [torch.exp(m - m_a), torch.exp(m - m_b)]
    low = torch.minimum(m_a, m_b)
    check_sums(
        merge(*a, *b),
        right,
        {
            "each sum is relative to its own maximum: bring both to the common one, by exp(m_a - m) and exp(m_b - m), "
            "before you add them": added,
            "l is rescaled, but acc is not: it is a sum of exp(score - m) too": (m, l, added[2]),
            "acc is rescaled, but l is not: it is a sum of exp(score - m) too": (m, added[1], acc),
            "the fading is the wrong way round: exp(score - m_a) becomes exp(score - m) by exp(m_a - m), which is at "
            "most 1": (
                m,
                l_a * fades[0] + l_b * fades[1],
                acc_a * fades[0][:, None] + acc_b * fades[1][:, None],
            ),
            "acc is divided already: then it cannot be added to a third part. The division comes once, at the end": (
                m,
                l,
                acc / l[:, None],
            ),
            "m is the smaller of the two maxima: then exponents above 0 remain, which overflow": (
                low,
                l * torch.exp(m - low),
                acc * torch.exp(m - low)[:, None],
            ),
            "the second half's maximum is taken for that of both; the first half's may be larger": (
                m_b,
                l * torch.exp(m - m_b),
                acc * torch.exp(m - m_b)[:, None],
            ),
        },
    )


@MERGE.part("an empty half", points=1)
def merge_empty(merge: Answer) -> None:
    scores, values, _ = halves()
    some, none = sums(scores, values), sums(scores[:, :0], values[:0])
    for a, b, right in ((some, none, some), (none, some, some), (none, none, none)):
        check_sums(merge(*a, *b), right, {})


@MERGE.part("scores in the thousands", points=1)
def merge_large(merge: Answer) -> None:
    scores, values, cut = halves(1000.0)
    value = merge(*sums(scores[:, :cut], values[:cut]), *sums(scores[:, cut:] - 2000, values[cut:]))
    whole = torch.cat([scores[:, :cut], scores[:, cut:] - 2000], 1)
    if isinstance(value, tuple | list) and any(
        isinstance(x, Tensor) and not x.isfinite().all() for x in value
    ):
        raise Wrong(
            "NaN or infinity: exp of the maximum itself overflows, or is 0. Only exp of a difference is ever computed"
        )
    check_sums(value, sums(whole, values), {})


@MERGE.part("many parts, in any order", points=1)
def merge_many(merge: Answer) -> None:
    scores, values, _ = halves()
    pieces = [sums(scores[:, i : i + 2], values[i : i + 2]) for i in range(0, 9, 2)]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        m, l, acc = sums(scores[:, :0], values[:0])
        for piece in order:
            m, l, acc = merge(m, l, acc, *pieces[piece])
        check_sums((m, l, acc), sums(scores, values), {})


# --- 05.2 tiled attention ---


def seen_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float | None = None) -> Tensor:
    """Attention of q [T, H, D] over k and v [S, H, D] where `seen` [T, S] is true."""
    scores = torch.einsum("thd,shd->hts", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return torch.einsum("hts,shd->thd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)


def walked(q: Tensor, k: Tensor, v: Tensor, block: int, *forgotten: str) -> Tensor:
    """Causal attention over tiles of `block` keys; "acc" or "l" does not fade, or the division "/" is forgotten."""
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
    """The mean of the softmaxes over each tile that a query sees."""
    seen, tiles = causal_mask(len(q), len(k), None, q.device), torch.arange(len(k)) // block
    each = [
        seen_attention(q, k, v, seen & (tiles == tile)).nan_to_num(0.0) for tile in range(int(tiles[-1]) + 1)
    ]
    num_seen = seen.sum(1).sub(1).div(block, rounding_mode="floor") + 1
    return torch.stack(each).sum(0) / num_seen[:, None, None]


def by_hand(attention: Answer, q: Tensor, k: Tensor, v: Tensor, block: int) -> Any:
    message = "torch's own attention does the whole exercise: do it by hand, tile by tile"
    with expect.without("scaled_dot_product|_safe_softmax", message):
        return attention(q, k, v, block)


def check_tiled(attention: Answer, num_queries: int, num_keys: int, block: int) -> None:
    q = expect.randn(num_queries, 2, 8, seed=0) * 2
    k, v = (expect.randn(num_keys, 2, 8, seed=seed) for seed in (1, 2))
    out = by_hand(attention, q, k, v, block)
    past = num_keys - num_queries
    position, key = past + torch.arange(num_queries)[:, None], torch.arange(num_keys)
    ends = (past + (position - past) // block * block + block).clamp_max(num_keys)  # of each query's tile
    causal = key <= position
    mistakes = {
        "a query sees later tokens: nothing is masked": seen_attention(
            q, k, v, key < num_keys + 0 * position
        ),
        "the later tiles are left out, but in the tile on the diagonal a query sees the later keys too: mask it": (
            seen_attention(q, k, v, key < -(-ends // block) * block)
        ),
        "the first query is put at the first key; it is the last query that stands at the last key": (
            seen_attention(q, k, v, key <= position - past)
        ),
        "l fades, but acc does not: both were summed relative to the old maximum": walked(
            q, k, v, block, "acc"
        ),
        "acc fades, but l does not: both were summed relative to the old maximum": walked(
            q, k, v, block, "l"
        ),
        "the sums are never divided by l": walked(q, k, v, block, "/"),
        "each tile of keys has a softmax of its own, and the results are averaged: a tile with larger scores must "
        "count more": averaged(q, k, v, block),
        "the scores are not divided by sqrt(D)": seen_attention(q, k, v, causal, 1.0),
        "the last, smaller tile of keys is left out: S need not be a multiple of block": seen_attention(
            q, k, v, causal & (key < ends // block * block)
        ),
    }
    right = attend(q, k, v, None)
    distinct = {
        text: value
        for text, value in mistakes.items()
        if value.isnan().any() or not torch.allclose(value, right, 1e-3, 1e-3)
    }
    expect.close(out, right, "T H D", mistakes=distinct)


@TILED_ATTENTION.part("a prompt, in whole tiles", points=1)
def tiled_prompt(attention: Answer) -> None:
    check_tiled(attention, 16, 16, 4)


@TILED_ATTENTION.part("after a cache, and the last tiles smaller", points=1)
def tiled_ragged(attention: Answer) -> None:
    check_tiled(attention, 9, 14, 4)
    check_tiled(attention, 1, 7, 4)
    check_tiled(attention, 5, 5, 8)


@TILED_ATTENTION.part("scores in the thousands, the largest first", points=1)
def tiled_large(attention: Answer) -> None:
    q, v = torch.ones(12, 1, 4), expect.randn(12, 1, 4, seed=3)
    k = torch.linspace(3000, -3000, 12)[:, None, None].expand(12, 1, 4).contiguous()
    out = by_hand(attention, q, k, v, 3)
    if isinstance(out, Tensor) and not out.isfinite().all():
        raise Wrong(
            "NaN or infinity with scores in the thousands: a tile with lower scores than those before must not lower "
            "the maximum, or exp(old m - new m) overflows"
        )
    expect.close(out, attend(q, k, v, None), "T H D")


def added_memory(attention: Answer, q: Tensor, k: Tensor, v: Tensor, block: int) -> int:
    """Bytes that the call needs at one time beyond its arguments; 0 where that cannot be measured."""
    out, added = expect.peak_of(
        lambda: by_hand(attention, q[:block], k[: 2 * block], v[: 2 * block], block),
        lambda: by_hand(attention, q, k, v, block),
    )
    expect.close(out, attend(q, k, v, None), "T H D")
    return added


@TILED_ATTENTION.part("the matrix of scores is never there", points=1, alone=True)
def tiled_no_matrix(attention: Answer) -> None:
    q, k, v = (expect.randn(2048, 2, 16, seed=seed) for seed in range(3))
    matrix = 2048 * 2048 * 2 * 4
    if added_memory(attention, q, k, v, 64) > matrix / 3:
        raise Wrong(
            f"for 2,048 tokens the call needs more than a third of the memory of the whole matrix of scores, "
            f"{matrix / 1e6:.0f} MB; a tile of 64 × 64 takes 0.03"
        )


@TILED_ATTENTION.part("nor are whole rows of it", points=1, alone=True)
def tiled_no_rows(attention: Answer) -> None:
    q = expect.randn(64, 2, 8, seed=0)
    k, v = (expect.randn(2**16, 2, 8, seed=seed) for seed in (1, 2))
    rows = 64 * 2**16 * 2 * 4
    if added_memory(attention, q, k, v, 64) > rows / 3:
        raise Wrong(
            f"for 64 queries over 65,536 keys the call holds whole rows of scores, {rows / 1e6:.0f} MB: cut the keys "
            "into tiles too, and carry m, l and acc from one to the next"
        )


@TILED_ATTENTION.part("tiles that nobody sees are not computed", points=2)
def tiled_skips(attention: Answer) -> None:
    n, block = 96, 32
    q, k, v = (expect.randn(n, 2, 8, seed=seed) for seed in range(3))
    right = attend(q, k, v, None)[: n - block]
    v[-1] = torch.nan  # whoever computes with it, if only with a weight of 0, gets NaN
    out = by_hand(attention, q, k, v, block)
    expect.tensor(out, [n, 2, 8], "T H D", torch.float32)
    if out[: n - block].isnan().any():
        raise Wrong(
            f"the last value is multiplied by a weight of 0 for queries of earlier tiles, which cannot see it: a tile "
            f"of keys beyond the last of {block} queries is not computed, so the inner loop ends before it"
        )
    expect.close(out[: n - block], right, "T H D")


# --- 05.3 join ---


def check_join(value: object, right: tuple[Tensor, Tensor], mistakes: dict[str, Tensor], lse: Tensor) -> None:
    """Refuse another result [H, D] and log-sum-exp [H]; `mistakes` are of the result, `lse` the parts' [P, H]."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise Wrong(
            f"join returns the attention [H, D] and its log-sum-exp [H]; yours returned {value!r:.60}"
        )
    expect.close(value[0], right[0], "H D", mistakes=mistakes, name="the attention")
    expect.tensor(value[1], right[1].shape, "H", torch.float32, "the log-sum-exp")
    empty = right[1] == -torch.inf
    if not (value[1][empty] == -torch.inf).all():
        raise Wrong("where no part has a key the log-sum-exp is -inf, the log of 0")
    some = ~empty
    wrong = {
        "the log-sum-exp is the largest of the parts', where it is the log of the sum of all": lse.amax(0),
        "the parts' log-sum-exps are added: that is the log of the product of the sums": lse.sum(0),
    }
    different = {
        text: x[some] for text, x in wrong.items() if not torch.allclose(x[some], right[1][some], 1e-3)
    }
    expect.close(value[1][some], right[1][some], "H", mistakes=different, name="the log-sum-exp")


def stretches(cuts: list[int], size: float = 1.0) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Attention of one token over the stretches between `cuts`, 3 heads: parts, lse, and the whole's two.

    The parts of empty stretches hold NaN.
    """
    heads, d, n = 3, 4, cuts[-1]
    scores, values = expect.randn(heads, n, seed=0) * 2 * size, expect.randn(n, heads, d, seed=1)

    def part(begin: int, end: int) -> tuple[Tensor, Tensor]:
        if begin == end:
            return torch.full((heads, d), torch.nan), torch.full((heads,), -torch.inf)
        tile = scores[:, begin:end]
        return torch.einsum("hs,shd->hd", tile.softmax(-1), values[begin:end]), tile.logsumexp(-1)

    parts = [part(begin, end) for begin, end in pairwise(cuts)]
    return torch.stack([p for p, _ in parts]), torch.stack([lse for _, lse in parts]), part(0, n)


@JOIN.part("three stretches", points=2)
def join_three(join: Answer) -> None:
    parts, lse, right = stretches([0, 7, 9, 12])
    mistakes = {
        "all parts count alike: one with many keys, or large scores, has a larger share exp(lse)": parts.mean(
            0
        ),
        "the parts are added up; each is a finished average, so they are to be averaged": parts.sum(0),
        "the weights are a softmax over the heads: it runs over the parts": torch.einsum(
            "phd,ph->hd", parts, lse.softmax(1)
        ),
        "the weights do not sum to 1: divide by their sum": torch.einsum(
            "phd,ph->hd", parts, torch.exp(lse - lse.amax(0))
        ),
    }
    check_join(join(parts, lse), right, mistakes, lse)


def refuse_nan(value: object, message: str) -> None:
    if isinstance(value, tuple | list) and any(isinstance(x, Tensor) and x.isnan().any() for x in value):
        raise Wrong(message)


@JOIN.part("a stretch without keys", points=1)
def join_empty(join: Answer) -> None:
    for cuts in ([0, 5, 10, 10, 10], [0, 0, 4], [0, 6]):
        parts, lse, right = stretches(cuts)
        value = join(parts, lse)
        refuse_nan(
            value,
            "NaN, where a part has no keys: its rows were never written, and 0 · NaN is NaN. Put 0 in their place "
            "before you multiply",
        )
        check_join(value, right, {}, lse)


@JOIN.part("log-sum-exps in the thousands", points=1)
def join_large(join: Answer) -> None:
    for size in (1000.0, -1000.0):
        parts, lse, right = stretches([0, 4, 8], size)
        lse, right = lse + 3 * size, (right[0], right[1] + 3 * size)
        value = join(parts, lse)
        far = "NaN or 0 with log-sum-exps in the thousands: exp(lse) is infinite, or 0. Their differences are what "
        far += "counts, so subtract the largest first"
        refuse_nan(value, far)
        if isinstance(value, tuple | list) and isinstance(value[0], Tensor) and not value[0].any():
            raise Wrong(far)
        check_join(value, right, {}, lse)


@JOIN.part("no keys at all", points=1)
def join_nothing(join: Answer) -> None:
    parts, lse, _ = stretches([0, 3, 6])
    parts[:, 1], lse[:, 1] = torch.nan, -torch.inf  # the second head's
    weights = lse.softmax(0)[..., None]
    right = (parts * weights).sum(0).nan_to_num(0.0), lse.logsumexp(0)
    value = join(parts, lse)
    refuse_nan(
        value,
        "NaN where there are no keys in any part: the sum of the weights is 0 there, and the result is to be 0",
    )
    check_join(value, right, {}, lse)


# --- 05.4 walk ---


def run_walk(
    walk: Answer,
    num_keys: int,
    block_m: int,
    block_n: int,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[Tensor], Tensor, Tensor, int]:
    """(q, k, v), what the kernel with this loop makes of them, out and lse, and the bytes of K and V that it loaded."""
    from triton.runtime.errors import InterpreterError

    from minillm.course.checks.ch05_kernel import attention_by
    from minillm.course.tools.interpreter import watching

    q, k, v = ((expect.randn(num_keys, 32, seed=seed) * 2).to(dtype) for seed in range(3))
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
                f"with {num_keys} keys in tiles of {block_n} the loop reads somebody else's memory: rows from "
                "num_keys on do not exist, so load with mask=j[:, None] < num_keys, other=0"
            )
        if any(inside[:2]):
            moved += addresses.size * size

    try:
        with watching(watch):
            out, lse = attention_by(_three(walk, block_m), q, k, v, block_m, block_n)
    except InterpreterError as error:  # around what was raised, once for each function that it went through
        cause: BaseException = error
        while isinstance(cause, InterpreterError) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise cause from None
    return [q, k, v], out, lse, moved


def _three(walk: Answer, block_m: int) -> Callable[..., Any]:
    """`walk`, whose results are looked at."""

    def checked(*args: Any) -> Any:
        value = walk(*args)
        if not isinstance(value, tuple | list) or len(value) != 3:
            raise Wrong(f"walk returns acc, m and l; yours returned {value!r:.60}")
        for name, part, wanted in zip(
            ("acc", "m", "l"), value, ([block_m, 32], [block_m], [block_m]), strict=True
        ):
            shape = [int(size) for size in getattr(part, "shape", [])]
            if shape != wanted:
                raise Wrong(f"{name} has shape {shape}; it should be {wanted}")
        if (value[2].handle.data == 0).any():
            raise Wrong(
                "l is 0: for some queries no key was added. They see the keys from `first` on too, up to themselves"
            )
        return tuple(value)

    return checked


def check_walk(
    walk: Answer, num_keys: int, block_m: int, block_n: int, dtype: torch.dtype = torch.float32
) -> None:
    rows, out, lse, _ = run_walk(walk, num_keys, block_m, block_n, dtype)
    q, k, v = (x.float()[:, None] for x in rows)  # one head
    scale = q.shape[-1] ** -0.5
    key, position = torch.arange(num_keys), torch.arange(num_keys)[:, None]
    tile_end = position // block_m * block_m + block_m
    causal = key <= position
    last = (torch.minimum(tile_end, torch.tensor(num_keys)) - 1) // block_n
    if out[0].isnan().all() and not out[1:].isnan().any():
        raise Wrong(
            "the first query gets NaN: it does not see its own key. A query sees the keys up to itself, <= i"
        )
    mistakes = {
        "a query sees the later keys of its tile: where j > i the score is -inf": seen_attention(
            q, k, v, key < -(-tile_end // block_n) * block_n
        ),
        "acc is not multiplied by exp(m - new_m) before a tile is added": walked(q, k, v, block_n, "acc"),
        "l is not multiplied by exp(m - new_m) before a tile is added": walked(q, k, v, block_n, "l"),
        "only the last tile counts: m must become new_m at the end of each turn, or what was summed fades to 0": (
            seen_attention(q, k, v, causal & (key // block_n == last))
        ),
        "the scores are not multiplied by `scale`": seen_attention(q, k, v, causal, 1.0),
        "a query does not see its own key: it sees the keys up to itself, <= i": seen_attention(
            q, k, v, key < position
        ),
    }
    right = seen_attention(q, k, v, causal)
    shown = {
        text: x[:, 0]
        for text, x in mistakes.items()
        if not torch.allclose(x, right, 1e-2, 1e-2, equal_nan=True)
    }
    loose = 2e-3 if dtype == torch.float16 else 1e-4
    expect.close(out.float(), right[:, 0], "S D", tolerance=loose, mistakes=shown, name="acc / l")
    scores = (q[:, 0] @ k[:, 0].T).masked_fill(~causal, -torch.inf)
    tops = scores.amax(-1)
    right_lse = (scores * scale).logsumexp(-1)
    unscaled = {
        "m is that of the unscaled scores: return the maximum of the scaled ones, since m + log(l) is stored": (
            right_lse - tops * scale + tops
        ),
        "m is in units of log 2: return it times log(2), since m + log(l) is stored": (
            right_lse + tops * scale * (1.4426950408889634 - 1)
        ),
    }
    expect.close(lse, right_lse, "S", tolerance=loose, mistakes=unscaled, name="m + log(l)")


@WALK.part("one tile of keys", points=1)
def walk_one(walk: Answer) -> None:
    check_walk(walk, 16, 16, 16)


@WALK.part("many tiles", points=2)
def walk_many(walk: Answer) -> None:
    check_walk(walk, 64, 16, 16)
    check_walk(walk, 64, 32, 16)
    check_walk(walk, 64, 16, 32, torch.float16)


@WALK.part("lengths that no tile divides", points=2)
def walk_ragged(walk: Answer) -> None:
    for num_keys, block_m, block_n in ((50, 16, 32), (5, 16, 16), (33, 32, 16)):
        check_walk(walk, num_keys, block_m, block_n)


@WALK.part("the bytes of K and V that are loaded", points=1)
def walk_bytes(walk: Answer) -> None:
    num_keys, block_m, block_n = 100, 32, 16
    *_, moved = run_walk(walk, num_keys, block_m, block_n)
    row = 32 * 4
    needed = 0
    for first in range(0, num_keys, block_m):
        tiles = -(-min(first + block_m, num_keys) // block_n)
        needed += 2 * min(tiles * block_n, num_keys) * row
    if moved != needed:
        raise Wrong(
            f"{moved:,} bytes of K and V are loaded for {num_keys} tokens, where the tiles that some query sees have "
            f"{needed:,}: each is loaded once for a tile of queries, and those from first + BLOCK_M on never"
        )
