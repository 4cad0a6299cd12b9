# exercise: 09.4
# says: nothing has been written to it
"""All that is allocated, as if the step had filled it."""


def publishable(scheduled, rejected, block_size):
    return [b for part in scheduled for b in part.blocks[part.num_computed_tokens // block_size :]]
