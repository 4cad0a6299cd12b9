# exercise: 03.4
# says: the cache is 19200; it should be 17920
"""The average, rounded."""


def cache_bytes(config, seq_lens, bytes_per_element):
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return numbers * round(sum(seq_lens) / len(seq_lens)) * len(seq_lens) * bytes_per_element
