# exercise: 03.4
# says: every layer has its own
"""The layers are left out."""


def cache_bytes(config, seq_lens, bytes_per_element):
    return 2 * config.num_key_value_heads * config.head_dim * sum(seq_lens) * bytes_per_element
