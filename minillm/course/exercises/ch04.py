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
        "Remember two things: how many holders each block has, and the order of the free blocks. What is the "
        "count of a block in the queue?",
        "A block is in the queue if and only if its count is 0. Each method keeps this true. allocate takes "
        "a block out. free puts it in when its count reaches 0. share takes it out when its count leaves 0.",
        "self.counts = [0] * n and self.queue = deque(range(n)). allocate: queue.popleft(), then count 1. "
        "share: at count 0 queue.remove(block), then count + 1. free: ValueError at count 0, else count - 1; "
        "when it reaches 0, queue.append(block) with keep, else queue.appendleft(block).",
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
        "Take one token. What is its position in its text? In which of its request's blocks is that "
        "position, and at which place in the block?",
        "Position p is in the request's block number p // block_size. In memory this is block block_table[p "
        "// block_size], and the place in it is p % block_size. The first new token has position "
        "num_computed, not 0.",
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
        "attend() takes the request's keys in one tensor, in the order of its text: [seq_len, H_kv, D]. "
        "Where must you cut the blocks that you have gathered?",
        "Index the pool with the block table. This copies only the request's blocks, in the order of the "
        "table. The last block is rarely full, and a table may hold blocks that are not written yet.",
        "k_cache[block_table] is [blocks, block_size, H_kv, D], and .flatten(0, 1)[:seq_len] of it is the "
        "text. Do the same for V. To copy less, take only the first ceil(seq_len / block_size) blocks of the "
        "table.",
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
        "There are three cases for the next token: its block does not exist yet; the block exists and is the "
        "sequence's own; the block exists and is shared. Only one of them copies.",
        "A block with two holders is never written. And nothing changes unless everything succeeds: allocate "
        "the new block first. Only when you have it, change the table, the counts and num_tokens.",
        "index = num_tokens // block_size. If index == len(table): allocate a block and append it. If "
        "holders(table[index]) > 1: new = allocate(); copy = (table[index], new); free(table[index]); "
        "table[index] = new. fork: a Sequence with a copy of the table and the same num_tokens, and "
        "share(block) for each block.",
    ),
)
