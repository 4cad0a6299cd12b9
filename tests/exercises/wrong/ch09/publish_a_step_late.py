# exercise: 09.4
# says: a step too late
"""What had been computed before the step."""


def publishable(scheduled, rejected, block_size):
    return [b for part in scheduled for b in part.blocks[: part.num_computed_tokens // block_size]]
