# exercise: 10.3
"""Windows in NumPy."""

import numpy as np


def ngram(token_ids, limit, longest=4, shortest=2):
    ids = np.array(token_ids)
    for n in range(longest, shortest - 1, -1):
        if len(ids) <= n:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(ids[:-1], n)
        places = np.flatnonzero((windows == ids[-n:]).all(1))
        if len(places):
            start = places[-1] + n
            return ids[start : start + limit].tolist()
    return []
