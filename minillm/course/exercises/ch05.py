"""Chapter 05, FlashAttention: its exercises in words."""

from minillm.course.exercise import Exercise

MERGE = Exercise(
    "05.1",
    "Merge two halves of a softmax",
    function="merge",
    points=5,
    minutes=10,
    difficulty=2,
    uses=(),
    hints=(
        "l and acc are sums of exp(s - m). You can add two of them only if both are relative to the same m.",
        "exp(s - m_a) · exp(m_a - m) = exp(s - m). If m is the larger of the two maxima, no exponent is "
        "above 0, so nothing overflows. An empty half has m = -inf, and -inf - (-inf) is NaN.",
        "m = torch.maximum(m_a, m_b); base = m, but 0 where m is -inf; fade_a = exp(m_a - base), and fade_b "
        "in the same way; l = l_a * fade_a + l_b * fade_b; acc likewise, with fade[:, None].",
    ),
)

TILED_ATTENTION = Exercise(
    "05.2",
    "Tiled attention",
    function="tiled_attention",
    points=7,
    minutes=15,
    difficulty=4,
    seconds=30.0,
    uses=("minillm.ops.causal_mask",),
    hints=(
        "Write two loops: the outer one over tiles of queries, the inner one over tiles of keys. Which "
        "numbers must you keep from one tile of keys to the next, for each row and head?",
        "Query i belongs to key S - T + i, and sees the keys up to that one. A tile of queries needs no key "
        "after that of its last query. When a tile raises the maximum, multiply the sums so far by exp(old m "
        "- new m).",
        "for first in range(0, T, block): m = -inf, l = 0, acc = 0; for start in range(0, S - T + last + 1, block): "
        "scores [t, H, b] by einsum, masked; new_m = maximum(m, scores.amax(-1)); p = exp(scores - new_m[..., None]); "
        "fade = exp(m - new_m); l = l * fade + p.sum(-1); acc = acc * fade[..., None] + einsum(p, v); m = new_m. Then "
        "out[rows] = acc / l[..., None].",
    ),
)

JOIN = Exercise(
    "05.3",
    "Join the parts of a split-K decode",
    function="join",
    points=5,
    minutes=10,
    difficulty=3,
    uses=(),
    hints=(
        "Each part is a softmax over its own keys, already divided by its own sum. How large was that sum?",
        "exp(lse) is a part's sum of exp(score). So the weight of a part is its share, exp(lse - lse of all "
        "parts). A part without keys has weight 0, but 0 · NaN is NaN. Never multiply rows that were not "
        "written.",
        "top = lse.amax(0), but 0 where it is -inf; weight = exp(lse - top); total = weight.sum(0). Set the "
        "rows of parts to 0 where weight is 0, multiply them by weight[..., None], sum over the parts, and "
        "divide by total where it is not 0. lse = top + log(total).",
    ),
)

WALK = Exercise(
    "05.4",
    "The inner loop in Triton",
    function="walk",
    points=6,
    minutes=20,
    difficulty=5,
    seconds=60.0,
    needs="triton",
    hints=(
        "It is the inner loop of 05.2 for one head. Two things are new: pointers instead of slices, and "
        "masks for rows that do not exist.",
        "Row j of k begins at k + j * HEAD_DIM. A tile may go beyond row num_keys - 1, so load it with a "
        "mask and other=0. A score is -inf where the key comes after the query. No query of this tile sees "
        "keys from first + BLOCK_M on.",
        "for start in range(0, tl.minimum(first + BLOCK_M, num_keys), BLOCK_N): at = j[:, None] * HEAD_DIM + "
        "d[None, :]; k_tile = tl.load(k + at, mask=j[:, None] < num_keys, other=0); "
        "s = tl.dot(q_tile, tl.trans(k_tile)) * scale; s = tl.where(j[None, :] <= i[:, None], s, float('-inf')); then "
        "new_m, p, fade, l, acc as before, with tl.dot(p.to(v_tile.dtype), v_tile).",
    ),
)
