# exercise: 10.5
# says: after the first one that differs
"""Later drafts that agree are kept."""


def commit(request, sampled, block_size):
    drafts, request.drafts = request.drafts, []
    rejected = False
    for token, draft in zip(sampled, [*drafts, None], strict=True):
        if request.finished or (rejected and token != draft):
            continue
        request.append(token)
        rejected = rejected or token != draft
    request.num_computed_tokens = len(request.token_ids) - 1
    first, last = request.num_published, request.num_computed_tokens // block_size
    request.num_published = last
    return request.block_table[first:last]
