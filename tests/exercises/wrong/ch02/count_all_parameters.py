# exercise: 02.1
# says: the embedding table is looked up
"""2 FLOP a parameter and token, the rule of thumb, with every parameter of the checkpoint."""


def count_step(config, query_lens, context_lens):
    tokens = sum(query_lens)
    P = config.num_parameters
    head = config.vocab_size * config.hidden_size
    flops = 2 * (P - head) * tokens + 2 * head * len(query_lens)
    for n, c in zip(query_lens, context_lens, strict=True):
        flops += 4 * config.num_hidden_layers * config.q_size * (n * c + n * (n + 1) // 2)
    kv = config.kv_bytes_per_token(2)
    return flops, 2 * P + kv * (sum(context_lens) + 2 * tokens)
