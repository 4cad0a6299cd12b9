# exercise: 10.5
# says: drafts are still there
"""The drafts are not cleared."""


def commit(request, sampled, block_size):
    drafts = request.drafts
    for token, draft in zip(sampled, [*drafts, None], strict=True):
        request.append(token)
        if token != draft or request.finished:
            break
    request.num_computed_tokens = len(request.token_ids) - 1
    first, last = request.num_published, request.num_computed_tokens // block_size
    request.num_published = last
    return request.block_table[first:last]
