# exercise: 10.4
# says: pair
"""Only k."""


def best_k(alpha, draft_cost, verify_costs):
    return max(range(len(verify_costs)), key=lambda k: sum(alpha**i for i in range(k + 1)) / (k * draft_cost + verify_costs[k]))
