# exercise: 08.2
"""Step by step, as the scheduler itself would."""


def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    chunks = []
    while sum(chunks) < num_tokens:
        left = budget
        for _ in range(num_decoding):
            left -= 1
        most = left if threshold == 0 else min(threshold, left)
        if most <= 0:
            raise ValueError(f"{num_decoding} requests use up the budget of {budget}")
        chunks.append(min(most, num_tokens - sum(chunks)))
    return chunks
