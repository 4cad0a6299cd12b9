# exercise: 10.4
# says: divide it by the cost
"""Tokens per step instead of the speed-up."""


def best_k(alpha, draft_cost, verify_costs):
    speedups = [sum(alpha**i for i in range(k + 1)) / (k * draft_cost + verify_costs[k]) for k in range(len(verify_costs))]
    k = max(range(len(speedups)), key=speedups.__getitem__)
    return k, sum(alpha**i for i in range(k + 1))
