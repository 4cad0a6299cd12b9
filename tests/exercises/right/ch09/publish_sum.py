# exercise: 09.4
"""sum of lists."""

def publishable(scheduled, rejected, block_size):
    parts = []
    for part in scheduled:
        before = part.num_computed_tokens
        after = before + part.num_tokens - rejected.get(part.request_id, 0)
        parts += [part.blocks[before // block_size : after // block_size]]
    return sum(parts, [])
