# exercise: 03.4
# says: bytes_per_element
"""At least two bytes."""


def cache_bytes(config, seq_lens, bytes_per_element):
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return numbers * sum(seq_lens) * max(2, bytes_per_element)
