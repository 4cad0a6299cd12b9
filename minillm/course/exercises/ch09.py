"""Chapter 09, prefix caching: its exercises in words."""

from minillm.course.exercise import Exercise

HASH_CHAIN = Exercise(
    "09.1",
    "The hash chain",
    function="extend_hashes",
    points=5,
    minutes=10,
    difficulty=2,
    changes=("hashes",),
    uses=(),
    hints=(
        "What do a block's keys and values depend on? All of that must be in its hash, and nothing else.",
        "hash(block i) = sha256(hash(block i - 1) + the block's tokens), and the root is the parent of block 0. "
        "The first len(hashes) blocks are done: begin after them, with the last of their hashes as the parent.",
        "for start in range(len(hashes) * block_size, len(token_ids) - block_size + 1, block_size): the parent is "
        "hashes[-1], or root if there is none; array('q', tokens).tobytes() gives each id 8 bytes; append "
        "sha256(parent + those bytes).digest().",
    ),
)

LONGEST_MATCH = Exercise(
    "09.2",
    "The longest match",
    function="longest_match",
    points=5,
    minutes=8,
    difficulty=2,
    uses=(),
    hints=(
        "Follow the chain from its first block. When must you stop, even if a later block is known?",
        "Stop at the first unknown hash, or at the block that holds the last token. At least one token is computed for "
        "its logits, so the hits cover at most num_tokens - 1 tokens. A block may have the number 0.",
        "for name in hashes[: (num_tokens - 1) // block_size]: break if name is not in known, else append known[name].",
    ),
)

FREE_QUEUE = Exercise(
    "09.3",
    "The order of eviction",
    function="FreeQueue",
    points=6,
    minutes=15,
    difficulty=3,
    uses=(),
    hints=(
        "One queue has two kinds of free blocks: those whose prefix is known, and the others. To which end does each "
        "kind go?",
        "The front is given away next, so blocks without a known prefix go there. The block that was used last goes to "
        "the back. The last block of a request goes before its first: without the first it cannot be found. A hit "
        "takes the block out of the queue, also from its middle.",
        "An OrderedDict: take is popitem(last=False), revive is del; give_back, for block in reversed(block_table): "
        "self.queue[block] = None, then move_to_end(block, last=block in known).",
    ),
)

PUBLISHABLE = Exercise(
    "09.4",
    "Publish after the forward",
    function="publishable",
    points=6,
    minutes=12,
    difficulty=3,
    uses=(),
    hints=(
        "Each request has two numbers: how many tokens were in the cache before the step, and how many stay in it "
        "after the step.",
        "A block is published in the step that completes it: it was not full before, and now it is, with tokens that "
        "stay. The token that the step samples is not in the cache yet; a rejected draft does not count.",
        "before = part.num_computed_tokens; after = before + part.num_tokens - rejected.get(part.request_id, 0); "
        "part.blocks[before // block_size : after // block_size].",
    ),
)
