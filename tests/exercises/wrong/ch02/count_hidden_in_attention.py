# exercise: 02.1
# says: attention is as wide as all query heads, num_attention_heads * head_dim
"""Attention is as wide as the hidden state."""


def count_step(config, query_lens, context_lens):
    h, q, kv, layers = config.hidden_size, config.q_size, config.kv_size, config.num_hidden_layers
    matrices = layers * (h * (q + 2 * kv) + q * h + 3 * h * config.intermediate_size)
    head = config.vocab_size * h
    new, seen = sum(query_lens), sum(query_lens) + sum(context_lens)
    pairs = sum(n * c + n * (n + 1) // 2 for n, c in zip(query_lens, context_lens))
    flops = 2 * matrices * new + 2 * head * len(query_lens) + 4 * h * layers * pairs
    return flops, 2 * (matrices + head) + 4 * layers * kv * (seen + new)
