# exercise: 10.4
# says: one draft is paid
"""One draft is paid."""


def best_k(alpha, draft_cost, verify_costs):
    best, fastest = 0, 0.0
    for k in range(len(verify_costs)):
        tokens = sum(alpha**i for i in range(k + 1))
        speedup = tokens / ((draft_cost if k else 0) + verify_costs[k])
        if speedup > fastest:
            best, fastest = k, speedup
    return best, fastest
