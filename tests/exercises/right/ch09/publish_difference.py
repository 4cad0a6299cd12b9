# exercise: 09.4
"""Full after the step, less full before it."""


def publishable(scheduled, rejected, block_size):
    def full(part, num_tokens):
        return [b for i, b in enumerate(part.blocks) if (i + 1) * block_size <= num_tokens]

    found = []
    for part in scheduled:
        before = full(part, part.num_computed_tokens)
        after = full(part, part.num_computed_tokens + part.num_tokens - rejected.get(part.request_id, 0))
        found.extend(block for block in after if block not in before)
    return found
