# exercise: 10.4
# says: k + 1 drafts are paid
"""The bonus token is drafted too."""


def best_k(alpha, draft_cost, verify_costs):
    best, fastest = 0, 0.0
    for k in range(len(verify_costs)):
        tokens = sum(alpha**i for i in range(k + 1))
        speedup = tokens / ((k + 1) * draft_cost + verify_costs[k])
        if speedup > fastest:
            best, fastest = k, speedup
    return best, fastest
