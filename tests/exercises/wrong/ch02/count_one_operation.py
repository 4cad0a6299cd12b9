# exercise: 02.1
# says: a multiply-add is two operations
"""Counts multiplications only."""


def count_step(config, query_lens, context_lens):
    h, q, kv, L = config.hidden_size, config.q_size, config.kv_size, config.num_hidden_layers
    per_layer = h * q + 2 * h * kv + q * h + 3 * h * config.intermediate_size
    head = h * config.vocab_size
    flops = bytes_kv = 0
    for n, c in zip(query_lens, context_lens, strict=True):
        flops += n * per_layer * L + head
        for i in range(n):
            flops += 2 * q * (c + i + 1) * L
        bytes_kv += 2 * L * kv * 2 * (c + n + n)
    return flops, 2 * (per_layer * L + head) + bytes_kv
