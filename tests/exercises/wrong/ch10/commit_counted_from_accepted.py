# exercise: 10.5
# says: cut off by the end
"""Accepted drafts after a stop are counted."""


def commit(request, sampled, block_size):
    before = request.num_computed_tokens - len(request.drafts)
    accepted = 0
    while accepted < len(request.drafts) and sampled[accepted] == request.drafts[accepted]:
        accepted += 1
    drafts, request.drafts = request.drafts, []
    for token, draft in zip(sampled, [*drafts, None], strict=True):
        request.append(token)
        if token != draft or request.finished:
            break
    request.num_computed_tokens = before + accepted
    first, last = request.num_published, request.num_computed_tokens // block_size
    request.num_published = last
    return request.block_table[first:last]
