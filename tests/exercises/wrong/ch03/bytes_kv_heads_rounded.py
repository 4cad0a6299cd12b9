# exercise: 03.4
# says: bytes_per_element
"""At least two KV heads."""


def cache_bytes(config, seq_lens, bytes_per_element):
    numbers = 2 * config.num_hidden_layers * max(2, config.num_key_value_heads) * config.head_dim
    return numbers * sum(seq_lens) * bytes_per_element
