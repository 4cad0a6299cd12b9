# exercise: 03.4
"""The config's own method, request by request."""


def cache_bytes(config, seq_lens, bytes_per_element):
    return sum(n * config.kv_bytes_per_token(bytes_per_element) for n in seq_lens)
