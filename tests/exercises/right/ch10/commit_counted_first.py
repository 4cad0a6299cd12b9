# exercise: 10.5
"""Count the accepted drafts first."""


def commit(request, sampled, block_size):
    accepted = 0
    while accepted < len(request.drafts) and request.drafts[accepted] == sampled[accepted]:
        accepted += 1
    for token in sampled[: accepted + 1]:
        if not request.finished:
            request.append(token)
    request.drafts.clear()
    request.num_computed_tokens = min(request.num_computed_tokens, len(request.token_ids) - 1)
    known = request.num_published
    request.num_published = max(known, request.num_computed_tokens // block_size)
    return list(request.block_table[known : request.num_published])
