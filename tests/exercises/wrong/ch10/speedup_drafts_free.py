# exercise: 10.4
# says: the drafts cost nothing
"""The drafts cost nothing."""


def best_k(alpha, draft_cost, verify_costs):
    best, fastest = 0, 0.0
    for k in range(len(verify_costs)):
        tokens = sum(alpha**i for i in range(k + 1))
        speedup = tokens / (verify_costs[k])
        if speedup > fastest:
            best, fastest = k, speedup
    return best, fastest
