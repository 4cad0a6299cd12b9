# exercise: 03.4
# says: as long as the longest
"""All as long as the longest."""


def cache_bytes(config, seq_lens, bytes_per_element):
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return numbers * max(seq_lens) * len(seq_lens) * bytes_per_element
