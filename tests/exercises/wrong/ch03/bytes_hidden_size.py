# exercise: 03.4
# says: hidden_size numbers for each token
"""The width of the hidden state, as in GPT-2."""


def cache_bytes(config, seq_lens, bytes_per_element):
    return 2 * config.num_hidden_layers * config.hidden_size * sum(seq_lens) * bytes_per_element
