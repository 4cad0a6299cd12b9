# exercise: 10.4
# says: k = 0 is not considered
"""At least one draft."""


def best_k(alpha, draft_cost, verify_costs):
    best, fastest = 0, 0.0
    for k in range(1, len(verify_costs)):
        tokens = sum(alpha**i for i in range(k + 1))
        speedup = tokens / (k * draft_cost + verify_costs[k])
        if speedup > fastest:
            best, fastest = k, speedup
    return best, fastest
