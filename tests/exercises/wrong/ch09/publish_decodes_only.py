# exercise: 09.4
# says: has 0 entries; 3 are wanted
"""Only who decodes."""

def publishable(scheduled, rejected, block_size):
    blocks = []
    for part in scheduled:
        if part.kind != "decode":
            continue
        before = part.num_computed_tokens
        after = before + part.num_tokens - rejected.get(part.request_id, 0)
        blocks += part.blocks[before // block_size : after // block_size]
    return blocks
