# exercise: 10.4
"""The closed form."""


def best_k(alpha, draft_cost, verify_costs):
    def speedup(k):
        tokens = k + 1 if alpha == 1 else (1 - alpha ** (k + 1)) / (1 - alpha)
        return tokens / (k * draft_cost + verify_costs[k])

    k = max(range(len(verify_costs)), key=lambda k: (round(speedup(k), 9), -k))
    return k, speedup(k)
