# exercise: 03.4
# says: the cache is 12800; it should be 17920
"""The first request only."""


def cache_bytes(config, seq_lens, bytes_per_element):
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return numbers * seq_lens[0] * bytes_per_element
