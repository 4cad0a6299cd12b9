# exercise: 10.5
# says: only accepted drafts are appended
"""Only accepted drafts are kept."""


def commit(request, sampled, block_size):
    drafts, request.drafts = request.drafts, []
    for token, draft in zip(sampled, [*drafts, None], strict=True):
        if draft is not None and token != draft:
            break
        request.append(token)
        if request.finished:
            break
    request.num_computed_tokens = len(request.token_ids) - 1
    first, last = request.num_published, request.num_computed_tokens // block_size
    request.num_published = last
    return request.block_table[first:last]
