# exercise: 09.4
# says: was complete before this step
"""From the first block on, in each step."""


def publishable(scheduled, rejected, block_size):
    blocks = []
    for part in scheduled:
        after = part.num_computed_tokens + part.num_tokens - rejected.get(part.request_id, 0)
        blocks += part.blocks[: after // block_size]
    return blocks
