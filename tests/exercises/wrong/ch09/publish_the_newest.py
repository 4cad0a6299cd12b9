# exercise: 09.4
# says: the newest token
"""The text's length after sampling: one more than the cache holds."""


def publishable(scheduled, rejected, block_size):
    blocks = []
    for part in scheduled:
        before = part.num_computed_tokens
        num_tokens = before + part.num_tokens - rejected.get(part.request_id, 0) + 1
        blocks += part.blocks[before // block_size : num_tokens // block_size]
    return blocks
