# exercise: 13.4
# says: at random
"""A random replica."""

import random


def route(candidates, num_prompt_tokens):
    return random.randrange(len(candidates))
