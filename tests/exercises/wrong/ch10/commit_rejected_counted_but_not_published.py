# exercise: 10.5
# says: rejected drafts are still counted
"""Only the publication leaves rejected drafts out."""


def commit(request, sampled, block_size):
    drafts, request.drafts = request.drafts, []
    for token, draft in zip(sampled, [*drafts, None], strict=True):
        request.append(token)
        if token != draft or request.finished:
            break
    first, last = request.num_published, (len(request.token_ids) - 1) // block_size
    request.num_published = last
    return request.block_table[first:last]
