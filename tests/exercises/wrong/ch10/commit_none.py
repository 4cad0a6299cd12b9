# exercise: 10.5
# says: is None
"""No return."""


def commit(request, sampled, block_size):
    drafts, request.drafts = request.drafts, []
    for token, draft in zip(sampled, [*drafts, None], strict=True):
        request.append(token)
        if token != draft or request.finished:
            break
    request.num_computed_tokens = len(request.token_ids) - 1
    request.num_published = request.num_computed_tokens // block_size
