# exercise: 10.5
# says: published again
"""Every full block is published in each step."""


def commit(request, sampled, block_size):
    drafts, request.drafts = request.drafts, []
    for token, draft in zip(sampled, [*drafts, None], strict=True):
        request.append(token)
        if token != draft or request.finished:
            break
    request.num_computed_tokens = len(request.token_ids) - 1
    request.num_published = request.num_computed_tokens // block_size
    return request.block_table[: request.num_published]
