# exercise: 02.1
# says: which counts later tokens too
"""n queries times all n + c keys, as vLLM's estimate counts a prefill."""


def count_step(config, query_lens, context_lens):
    h, q, kv, L = config.hidden_size, config.q_size, config.kv_size, config.num_hidden_layers
    weights = L * (2 * h * q + 2 * h * kv + 3 * h * config.intermediate_size)
    head = h * config.vocab_size
    T = sum(query_lens)
    scores = sum(n * (c + n) for n, c in zip(query_lens, context_lens, strict=True))
    cache = 4 * L * kv
    return (
        2 * T * weights + 2 * head * len(query_lens) + 4 * L * q * scores,
        2 * (weights + head) + cache * (sum(context_lens) + 2 * T),
    )
