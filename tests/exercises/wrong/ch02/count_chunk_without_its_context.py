# exercise: 02.1
# says: the context that is already in the cache is missing
"""A chunk as if it were a prompt of its own; decodes are right."""


def count_step(config, query_lens, context_lens):
    h, q, kv, L = config.hidden_size, config.q_size, config.kv_size, config.num_hidden_layers
    weights = L * (2 * h * q + 2 * h * kv + 3 * h * config.intermediate_size)
    head = h * config.vocab_size
    T = sum(query_lens)
    pairs = sum(n * (n + 1) // 2 for n in query_lens)
    cache = 4 * L * kv
    return (
        2 * T * weights + 2 * head * len(query_lens) + 4 * L * q * pairs,
        2 * (weights + head) + cache * (sum(context_lens) + 2 * T),
    )
