# exercise: 02.1
# says: the two numbers
"""Returns one number."""


def count_step(config, query_lens, context_lens):
    return 2 * config.num_parameters * sum(query_lens)
