# exercise: 10.4
"""torch, in float64."""

import torch


def best_k(alpha, draft_cost, verify_costs):
    k = torch.arange(len(verify_costs), dtype=torch.float64)
    tokens = torch.cumsum(torch.tensor(alpha, dtype=torch.float64) ** k, 0)
    speedup, best = (tokens / (k * draft_cost + torch.tensor(verify_costs, dtype=torch.float64))).max(0)
    return int(best), float(speedup)
