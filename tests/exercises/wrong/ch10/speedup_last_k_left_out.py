# exercise: 10.4
# says: largest k
"""The range ends one too early."""


def best_k(alpha, draft_cost, verify_costs):
    best, fastest = 0, 0.0
    for k in range(len(verify_costs) - 1):
        tokens = sum(alpha**i for i in range(k + 1))
        speedup = tokens / (k * draft_cost + verify_costs[k])
        if speedup > fastest:
            best, fastest = k, speedup
    return best, fastest
