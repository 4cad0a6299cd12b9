# exercise: 10.4
"""Running sums."""


def best_k(alpha, draft_cost, verify_costs):
    tokens, chance, drafting, found = 0.0, 1.0, 0.0, []
    for verify in verify_costs:
        tokens += chance
        found.append(tokens / (drafting + verify))
        chance, drafting = chance * alpha, drafting + draft_cost
    return found.index(max(found)), max(found)
