# exercise: 10.4
# says: one by one
"""A step for each token."""


def best_k(alpha, draft_cost, verify_costs):
    best, fastest = 0, 0.0
    for k in range(len(verify_costs)):
        tokens = sum(alpha**i for i in range(k + 1))
        speedup = tokens / (k * draft_cost + (k + 1) * verify_costs[0])
        if speedup > fastest:
            best, fastest = k, speedup
    return best, fastest
