# exercise: 02.1
# says: You count two
"""The MLP of the first transformers: up and down."""


def count_step(config, query_lens, context_lens):
    h, q, kv, L = config.hidden_size, config.q_size, config.kv_size, config.num_hidden_layers
    weights = L * (2 * h * q + 2 * h * kv + 2 * h * config.intermediate_size)
    head = h * config.vocab_size
    T = sum(query_lens)
    pairs = sum(n * c + n * (n + 1) // 2 for n, c in zip(query_lens, context_lens, strict=True))
    return (
        2 * T * weights + 2 * head * len(query_lens) + 4 * L * q * pairs,
        2 * (weights + head) + 4 * L * kv * (sum(context_lens) + 2 * T),
    )
