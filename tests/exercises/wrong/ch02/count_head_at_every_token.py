# exercise: 02.1
# says: the head runs at the last token of each request only
"""The head is one more matrix."""


def count_step(config, query_lens, context_lens):
    h, q, kv, L = config.hidden_size, config.q_size, config.kv_size, config.num_hidden_layers
    matrices = [(h, q), (h, kv), (h, kv), (q, h)] + [(h, config.intermediate_size)] * 3
    weights = L * sum(a * b for a, b in matrices) + h * config.vocab_size
    T = sum(query_lens)
    pairs = sum(n * c + n * (n + 1) // 2 for n, c in zip(query_lens, context_lens, strict=True))
    return (
        2 * T * weights + 4 * L * q * pairs,
        2 * weights + 4 * L * kv * (sum(context_lens) + 2 * T),
    )
