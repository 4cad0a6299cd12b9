# exercise: 13.4
"""NumPy."""

import numpy as np


def route(candidates, num_prompt_tokens):
    load = np.array([one.num_unfinished_tokens for one in candidates])
    cached = np.array([one.num_cached_tokens for one in candidates])
    return np.lexsort((load, load - cached))[0]
