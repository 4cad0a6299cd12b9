# exercise: 10.4
"""The chance of each number of tokens."""


def best_k(alpha, draft_cost, verify_costs):
    best = (0, 1 / verify_costs[0])
    for k in range(1, len(verify_costs)):
        mean = (k + 1) * alpha**k
        for accepted in range(k):
            mean += (accepted + 1) * alpha**accepted * (1 - alpha)
        speedup = mean / (k * draft_cost + verify_costs[k])
        if speedup > best[1] + 1e-12:
            best = (k, speedup)
    return best
