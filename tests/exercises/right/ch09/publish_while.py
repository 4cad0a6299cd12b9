# exercise: 09.4
"""while."""

def publishable(scheduled, rejected, block_size):
    blocks = []
    for part in scheduled:
        before = part.num_computed_tokens
        after = before + part.num_tokens - rejected.get(part.request_id, 0)
        i = before // block_size
        while (i + 1) * block_size <= after:
            blocks.append(part.blocks[i])
            i += 1
    return blocks
