# exercise: 10.4
# says: a step too many is paid
"""The verification and a step are paid."""


def best_k(alpha, draft_cost, verify_costs):
    best, fastest = 0, 0.0
    for k in range(len(verify_costs)):
        tokens = sum(alpha**i for i in range(k + 1))
        speedup = tokens / (1 + k * draft_cost + verify_costs[k])
        if speedup > fastest:
            best, fastest = k, speedup
    return best, fastest
