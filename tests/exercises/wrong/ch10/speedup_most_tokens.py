# exercise: 10.4
# says: the most tokens per step
"""The k with the most tokens per step."""


def best_k(alpha, draft_cost, verify_costs):
    k = len(verify_costs) - 1 if alpha > 0 else 0
    return k, sum(alpha**i for i in range(k + 1)) / (k * draft_cost + verify_costs[k])
