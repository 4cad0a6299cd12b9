# exercise: 03.4
# says: the cache is a float (3200.0); a int is wanted
"""A float."""


def cache_bytes(config, seq_lens, bytes_per_element):
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return 1.0 * numbers * sum(seq_lens) * bytes_per_element
