# exercise: 02.1
"""From the number of parameters, less the table that is only looked up; floats."""


def count_step(config, query_lens, context_lens):
    head = config.vocab_size * config.hidden_size
    layers = config.num_parameters - (1 if config.tie_word_embeddings else 2) * head
    tokens, requests = sum(query_lens), len(query_lens)
    in_sight = sum(n * (c + (n + 1) / 2) for n, c in zip(query_lens, context_lens, strict=True))
    flops = (
        2.0 * layers * tokens
        + 2.0 * head * requests
        + 4.0 * in_sight * config.num_hidden_layers * config.q_size
    )
    return flops, 2.0 * (layers + head) + config.kv_bytes_per_token(2) * (sum(context_lens) + 2.0 * tokens)
