"""Chapter 03, the KV cache: its exercises in words."""

from minillm.course.exercise import Exercise

CACHED_STEP = Exercise(
    "03.1",
    "One cached step",
    function="cached_step",
    points=4,
    minutes=15,
    difficulty=2,
    changes=("k_cache", "v_cache"),
    uses=("minillm.ops.rope",),
    hints=(
        "Do three things in order: rotate, write, attend. Which of q, k and v does RoPE rotate, and with "
        "which row of cos and sin?",
        "Rows 0 … position - 1 were rotated when they were written, and stay as they are. After you write "
        "the new row, rows 0 … position hold the whole text. The one query sees all of them, so you need no "
        "mask.",
        "k_cache[position] = rope(k, cos[position], sin[position]); v_cache[position] = v; rotate q in the "
        "same way; then keys = k_cache[: position + 1], einsum('hd,shd->hs') / D**0.5, softmax, "
        "einsum('hs,shd->hd').",
    ),
)

APPEND_MASK = Exercise(
    "03.2",
    "The mask of a chunk",
    function="append_mask",
    points=5,
    minutes=10,
    difficulty=2,
    uses=(),
    hints=(
        "Draw the mask for 3 cached tokens and 2 new ones: 2 rows, 5 columns. What is the position of the "
        "first row?",
        "The position of row i is num_computed + i, so it sees columns 0 … num_computed + i. The last row "
        "sees all columns. So the corner of the triangle is at the bottom right, not at the top left.",
        "torch.ones(num_tokens, num_computed + num_tokens, dtype=torch.bool).tril(diagonal=…). The diagonal "
        "is the last column that the first row sees.",
    ),
)

GROUPED_ATTENTION = Exercise(
    "03.3",
    "GQA without copying K and V",
    function="grouped_attention",
    points=5,
    minutes=15,
    difficulty=3,
    seconds=20.0,
    uses=(),
    hints=(
        "H / H_kv query heads use the same KV head. To that KV head they are H / H_kv queries.",
        "Query head h belongs to KV head h // (H / H_kv), so neighbours share one. View q as [H_kv, H / "
        "H_kv, D]. Each group is then in the row of its KV head, and you need not repeat K or V.",
        "grouped = q.view(H_kv, H // H_kv, D); scores = einsum('kgd,skd->kgs') / D**0.5; softmax over s; "
        "einsum('kgs,skd->kgd'); reshape the result to [H, D].",
    ),
)

CACHE_BYTES = Exercise(
    "03.4",
    "Cache bytes",
    function="cache_bytes",
    points=3,
    minutes=5,
    difficulty=1,
    uses=("minillm.config",),
    hints=(
        "First count the numbers for one token in one layer. Then multiply.",
        "A token has a key and a value in each layer. Each of them has H_kv · D numbers. The requests add "
        "up, each with its own length.",
        "2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * bytes_per_element, "
        "multiplied by the sum of the lengths.",
    ),
)
