# exercise: 09.4
# says: in blocks of 3
"""Powers of two only."""

def publishable(scheduled, rejected, block_size):
    blocks = []
    for part in scheduled:
        before = part.num_computed_tokens
        after = before + part.num_tokens - rejected.get(part.request_id, 0)
        blocks += part.blocks[before >> (block_size.bit_length() - 1) : after >> (block_size.bit_length() - 1)]
    return blocks
