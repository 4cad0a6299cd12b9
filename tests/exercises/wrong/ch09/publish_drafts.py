# exercise: 09.4
# says: the model turned down
"""Drafts count, whatever became of them."""


def publishable(scheduled, rejected, block_size):
    blocks = []
    for part in scheduled:
        before = part.num_computed_tokens
        blocks += part.blocks[before // block_size : (before + part.num_tokens) // block_size]
    return blocks
