# exercise: 10.4
# says: as if it cost the same as one token
"""Verification costs one step."""


def best_k(alpha, draft_cost, verify_costs):
    best, fastest = 0, 0.0
    for k in range(len(verify_costs)):
        tokens = sum(alpha**i for i in range(k + 1))
        speedup = tokens / (k * draft_cost + 1)
        if speedup > fastest:
            best, fastest = k, speedup
    return best, fastest
