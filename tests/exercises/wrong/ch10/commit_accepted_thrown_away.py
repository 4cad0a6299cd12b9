# exercise: 10.5
# says: does not count accepted drafts
"""All drafts are taken off."""


def commit(request, sampled, block_size):
    start = request.num_computed_tokens - len(request.drafts)
    drafts, request.drafts = request.drafts, []
    for token, draft in zip(sampled, [*drafts, None], strict=True):
        request.append(token)
        if token != draft or request.finished:
            break
    request.num_computed_tokens = start
    first, last = request.num_published, request.num_computed_tokens // block_size
    request.num_published = last
    return request.block_table[first:last]
