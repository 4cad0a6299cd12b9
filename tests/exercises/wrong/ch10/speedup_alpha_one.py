# exercise: 10.4
# says: alpha = 1
"""The closed form divides by zero."""


def best_k(alpha, draft_cost, verify_costs):
    best, fastest = 0, 0.0
    for k in range(len(verify_costs)):
        tokens = (1 - alpha ** (k + 1)) / (1 - alpha)
        speedup = tokens / (k * draft_cost + verify_costs[k])
        if speedup > fastest:
            best, fastest = k, speedup
    return best, fastest
