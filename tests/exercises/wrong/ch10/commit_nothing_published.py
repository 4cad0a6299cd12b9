# exercise: 10.5
# says: missing from the result
"""Nothing is published."""


def commit(request, sampled, block_size):
    drafts, request.drafts = request.drafts, []
    for token, draft in zip(sampled, [*drafts, None], strict=True):
        request.append(token)
        if token != draft or request.finished:
            break
    request.num_computed_tokens = len(request.token_ids) - 1
    return []
