# exercise: 02.1
"""Layer by layer, request by request, query by query."""


def count_step(config, query_lens, context_lens):
    flops = moved = 0
    for _ in range(config.num_hidden_layers):
        for rows, columns in (
            (config.q_size, config.hidden_size),
            (2 * config.kv_size, config.hidden_size),
            (config.hidden_size, config.q_size),
            (3 * config.intermediate_size, config.hidden_size),
        ):
            flops += 2 * rows * columns * sum(query_lens)
            moved += 2 * rows * columns
        for new, old in zip(query_lens, context_lens):
            for i in range(new):
                flops += config.num_attention_heads * 2 * 2 * config.head_dim * (old + i + 1)
            moved += 2 * 2 * config.num_key_value_heads * config.head_dim * (old + new + new)
    head = config.vocab_size * config.hidden_size
    return flops + 2 * head * len(query_lens), moved + 2 * head
