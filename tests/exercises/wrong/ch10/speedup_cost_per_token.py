# exercise: 10.4
# says: upside down
"""Cost divided by tokens."""


def best_k(alpha, draft_cost, verify_costs):
    costs = [(k * draft_cost + verify_costs[k]) / sum(alpha**i for i in range(k + 1)) for k in range(len(verify_costs))]
    best = min(range(len(costs)), key=costs.__getitem__)
    return best, costs[best]
