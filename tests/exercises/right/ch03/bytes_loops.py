# exercise: 03.4
"""Counted entry by entry."""


def cache_bytes(config, seq_lens, bytes_per_element):
    total = 0
    for length in seq_lens:
        for _layer in range(config.num_hidden_layers):
            numbers = length * config.num_key_value_heads * config.head_dim
            total += bytes_per_element * (numbers + numbers)  # keys, values
    return total
