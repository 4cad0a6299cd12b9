# exercise: 10.4
# says: all k drafts or none
"""All drafts are accepted, or none."""


def best_k(alpha, draft_cost, verify_costs):
    best, fastest = 0, 0.0
    for k in range(len(verify_costs)):
        tokens = 1 + k * alpha**k
        speedup = tokens / (k * draft_cost + verify_costs[k])
        if speedup > fastest:
            best, fastest = k, speedup
    return best, fastest
