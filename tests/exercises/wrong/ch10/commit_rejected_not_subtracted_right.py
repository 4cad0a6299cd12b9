# exercise: 10.5
# says: the newest token is counted
"""The number of rejected drafts is one too few."""


def commit(request, sampled, block_size):
    drafts, kept = request.drafts, 0
    for token, draft in zip(sampled, [*drafts, None], strict=True):
        request.append(token)
        kept += 1
        if token != draft or request.finished:
            break
    request.drafts = []
    request.num_computed_tokens -= len(drafts) - kept
    first, last = request.num_published, request.num_computed_tokens // block_size
    request.num_published = last
    return request.block_table[first:last]
