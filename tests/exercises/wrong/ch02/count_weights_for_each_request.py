# exercise: 02.1
# says: You read them once for each request
"""Adds up each request's own step."""


def one(config, n, c):
    h, q, kv, L = config.hidden_size, config.q_size, config.kv_size, config.num_hidden_layers
    weights = L * (2 * h * q + 2 * h * kv + 3 * h * config.intermediate_size)
    head = h * config.vocab_size
    flops = 2 * n * weights + 2 * head + 4 * L * q * (n * c + n * (n + 1) / 2)
    return flops, 2 * (weights + head) + 4 * L * kv * (c + n) + 4 * L * kv * n


def count_step(config, query_lens, context_lens):
    steps = [one(config, n, c) for n, c in zip(query_lens, context_lens, strict=True)]
    return sum(f for f, _ in steps), sum(b for _, b in steps)
