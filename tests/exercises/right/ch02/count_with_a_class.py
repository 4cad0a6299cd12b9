# exercise: 02.1
"""A callable object; floats come back."""


class Counter:
    def __call__(self, config, query_lens, context_lens):
        c, layers = config, config.num_hidden_layers
        n = layers * (c.hidden_size * (2 * c.q_size + 2 * c.kv_size + 3 * c.intermediate_size))
        head = c.vocab_size * c.hidden_size
        pairs = sum(a * (2 * b + a + 1) / 2 for a, b in zip(query_lens, context_lens))
        flops = 2.0 * n * sum(query_lens) + 2.0 * head * len(query_lens) + 4.0 * c.q_size * layers * pairs
        cache = sum(2.0 * a + b for a, b in zip(query_lens, context_lens)) * 4 * layers * c.kv_size
        return flops, 2.0 * (n + head) + cache


count_step = Counter()
