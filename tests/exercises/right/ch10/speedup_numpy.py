# exercise: 10.4
"""All k at once."""

import numpy as np


def best_k(alpha, draft_cost, verify_costs):
    k = np.arange(len(verify_costs))
    speedups = np.cumsum(alpha**k) / (k * draft_cost + np.array(verify_costs))
    best = int(speedups.argmax())
    return best, speedups[best]
