"""Chapter 04, paged attention: its exercises in words."""

from minillm.course.exercise import Exercise

ALLOCATOR = Exercise(
    "04.1",
    "Allocate, share, free",
    function="Allocator",
    points=6,
    minutes=15,
    difficulty=3,
    uses=(),
    hints=(
        "Two things to remember: how many hold each block, and in which order the free ones stand. What is true of a "
        "block's count when it stands in the queue?",
        "A block is in the queue if and only if its count is 0. Each method keeps that true: allocate takes one out, "
        "free puts one in when the count reaches 0, share takes one out when the count leaves 0.",
        "self.counts = [0] * n and self.queue = deque(range(n)); allocate: queue.popleft(), count 1; share: at count 0 "
        "queue.remove(block), then count + 1; free: ValueError at count 0, else count - 1, and at 0 append (keep) or "
        "appendleft.",
    ),
)

SLOT_MAPPING = Exercise(
    "04.2",
    "Slot mapping",
    function="slot_mapping",
    points=4,
    minutes=10,
    difficulty=2,
    uses=(),
    hints=(
        "Take one token. At which position of its text does it stand? In which of its request's blocks, at which place "
        "there?",
        "Position p lies in the request's block number p // block_size, which is block_table[p // block_size] of the "
        "memory, at place p % block_size. The first new token stands at position num_computed, not 0.",
        "for table, start, n in zip(block_tables, num_computed, num_tokens): for p in range(start, start + n): "
        "table[p // block_size] * block_size + p % block_size; then torch.tensor(…, dtype=torch.int64).",
    ),
)

PAGED_ATTENTION = Exercise(
    "04.3",
    "Attention through a block table",
    function="paged_attention",
    points=6,
    minutes=10,
    difficulty=3,
    seconds=20.0,
    uses=("minillm.ops.attend",),
    hints=(
        "attend() wants the request's keys side by side, in the order of its text: [seq_len, H_kv, D]. Where must what "
        "you have gathered be cut?",
        "Index the pool with the block table: that copies the request's blocks and no other, in the table's order. "
        "The last block is rarely full, and a table may hold blocks that are not written at all yet.",
        "k_cache[block_table] is [blocks, block_size, H_kv, D]; .flatten(0, 1)[:seq_len] is the text. The same for V. "
        "Taking only the first ceil(seq_len / block_size) blocks of the table saves a copy.",
    ),
)

SEQUENCE = Exercise(
    "04.4",
    "Fork with copy-on-write",
    function="Sequence",
    points=7,
    minutes=20,
    difficulty=4,
    uses=("minillm.cache.blocks.BlockAllocator",),
    hints=(
        "Three cases for the next token: its block does not exist yet; it exists and is yours alone; it exists and "
        "others hold it too. Only one of them copies.",
        "A block with two holders is never written. And nothing changes unless all can be done: ask the allocator for "
        "the new block first, and only when you have it touch the table, the counts, or num_tokens.",
        "index = num_tokens // block_size. If index == len(table): allocate, append. Elif holders(table[index]) > 1: "
        "new = allocate(); copy = (table[index], new); free(table[index]); table[index] = new. fork: a Sequence with a "
        "copy of the table and the same num_tokens, and share(block) for each block.",
    ),
)
