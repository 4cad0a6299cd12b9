# exercise: 09.4
# says: publishes nothing
"""Who has a rejected draft publishes nothing."""

def publishable(scheduled, rejected, block_size):
    blocks = []
    for part in scheduled:
        before = part.num_computed_tokens
        after = before + part.num_tokens - rejected.get(part.request_id, 0)
        if rejected.get(part.request_id):
            continue
        blocks += part.blocks[before // block_size : after // block_size]
    return blocks
