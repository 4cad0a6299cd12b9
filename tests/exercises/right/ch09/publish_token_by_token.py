# exercise: 09.4
"""Each token that the step wrote: the last one of a block completes it."""


def publishable(scheduled, rejected, block_size):
    blocks = []
    for part in scheduled:
        stay = part.num_tokens - rejected.get(part.request_id, 0)
        for position in range(part.num_computed_tokens, part.num_computed_tokens + stay):
            if position % block_size == block_size - 1:
                blocks.append(part.blocks[position // block_size])
    return blocks
