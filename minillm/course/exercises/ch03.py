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
        "Three things in order: turn, write, attend. Which of q, k, v does RoPE turn, and by which row's angle?",
        "Rows 0 … position - 1 were turned when they were written and stay as they are. Once the new row is written, "
        "rows 0 … position hold the whole text, and the one query sees all of them: no mask.",
        "k_cache[position] = rope(k, cos[position], sin[position]), v_cache[position] = v, q turned likewise; then "
        "keys = k_cache[: position + 1], einsum('hd,shd->hs') / D**0.5, softmax, einsum('hs,shd->hd').",
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
        "Draw it for 3 cached tokens and 2 new ones: 2 rows, 5 columns. At which position does the first row stand?",
        "Row i stands at position num_computed + i, so it sees columns 0 … num_computed + i. The last row sees all: "
        "the triangle's corner is at the bottom right, not at the top left.",
        "torch.ones(num_tokens, num_computed + num_tokens, dtype=torch.bool).tril(diagonal=…): the diagonal that the "
        "first row ends on.",
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
        "H / H_kv query heads ask the same KV head. To that head they are simply so many queries.",
        "Query head h belongs to KV head h // (H / H_kv): neighbours share. A view of q as [H_kv, H / H_kv, D] puts "
        "each group beside its head, and nothing of K or V needs to be repeated.",
        "grouped = q.view(H_kv, H // H_kv, D); scores = einsum('kgd,skd->kgs') / D**0.5; softmax over s; "
        "einsum('kgs,skd->kgd'); reshape to [H, D].",
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
        "Count numbers first, for one token in one layer. Then multiply.",
        "A token leaves a key and a value in each layer, each of H_kv · D numbers; requests add up, each with its own "
        "length.",
        "2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * bytes_per_element, times the "
        "sum of the lengths.",
    ),
)
