# exercise: 02.1
"""Token by token, layer by layer, matrix by matrix, with norms and looked-up rows."""


def count_step(config, query_lens, context_lens):
    h = config.hidden_size
    matrices = {
        "q": (h, config.num_attention_heads * config.head_dim),
        "k": (h, config.num_key_value_heads * config.head_dim),
        "v": (h, config.num_key_value_heads * config.head_dim),
        "o": (config.num_attention_heads * config.head_dim, h),
        "gate": (h, config.intermediate_size),
        "up": (h, config.intermediate_size),
        "down": (config.intermediate_size, h),
    }
    flops = numbers = 0
    for _ in range(config.num_hidden_layers):
        numbers += sum(rows * columns for rows, columns in matrices.values()) + 2 * h
        for n, context in zip(query_lens, context_lens, strict=True):
            flops += n * sum(2 * rows * columns for rows, columns in matrices.values())
            for position in range(context, context + n):
                flops += config.num_attention_heads * (position + 1) * 2 * (2 * config.head_dim)
            numbers += (context + n + n) * 2 * config.num_key_value_heads * config.head_dim
    flops += len(query_lens) * 2 * h * config.vocab_size
    numbers += h * config.vocab_size + h * sum(query_lens)
    return flops, 2 * numbers
