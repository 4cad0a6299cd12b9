# exercise: 03.4
# says: as many as query heads
"""Heads are heads."""


def cache_bytes(config, seq_lens, bytes_per_element):
    per_token = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    return sum(seq_lens) * per_token * bytes_per_element
