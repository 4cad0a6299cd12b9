# exercise: 09.4
"""Block by block."""

def publishable(scheduled, rejected, block_size):
    blocks = []
    for part in scheduled:
        before = part.num_computed_tokens
        after = before + part.num_tokens - rejected.get(part.request_id, 0)
        blocks += [b for i, b in enumerate(part.blocks) if before < (i + 1) * block_size <= after]
    return blocks
