# exercise: 03.4
# says: as long as the longest
"""A rectangle, padded to the longest."""


def cache_bytes(config, seq_lens, bytes_per_element):
    tokens = len(seq_lens) * max(seq_lens)
    return (
        2
        * config.num_hidden_layers
        * config.num_key_value_heads
        * config.head_dim
        * tokens
        * bytes_per_element
    )
