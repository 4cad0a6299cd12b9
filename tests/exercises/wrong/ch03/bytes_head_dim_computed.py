# exercise: 03.4
# says: hidden_size / num_attention_heads
"""head_dim as it is in most models, not as the config says."""


def cache_bytes(config, seq_lens, bytes_per_element):
    head_dim = config.hidden_size // config.num_attention_heads
    return (
        2
        * config.num_hidden_layers
        * config.num_key_value_heads
        * head_dim
        * sum(seq_lens)
        * bytes_per_element
    )
