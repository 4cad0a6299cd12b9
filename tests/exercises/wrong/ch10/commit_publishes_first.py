# exercise: 10.5
# says: before the drafts are verified
"""Blocks are published before the drafts are verified."""


def commit(request, sampled, block_size):
    first, last = request.num_published, request.num_computed_tokens // block_size
    request.num_published = last
    drafts, request.drafts = request.drafts, []
    for token, draft in zip(sampled, [*drafts, None], strict=True):
        request.append(token)
        if token != draft or request.finished:
            break
    request.num_computed_tokens = len(request.token_ids) - 1
    return request.block_table[first:last]
