# exercise: 10.4
# says: bonus token is not counted
"""The bonus token is not counted."""


def best_k(alpha, draft_cost, verify_costs):
    best, fastest = 0, 0.0
    for k in range(len(verify_costs)):
        tokens = sum(alpha**i for i in range(k)) if k else 1.0
        speedup = tokens / (k * draft_cost + verify_costs[k])
        if speedup > fastest:
            best, fastest = k, speedup
    return best, fastest
