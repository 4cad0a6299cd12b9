# exercise: 10.5
# says: block_table is changed
"""The blocks of rejected drafts leave the table."""


def commit(request, sampled, block_size):
    drafts, request.drafts = request.drafts, []
    for token, draft in zip(sampled, [*drafts, None], strict=True):
        request.append(token)
        if token != draft or request.finished:
            break
    request.num_computed_tokens = len(request.token_ids) - 1
    needed = -(-len(request.token_ids) // block_size)
    del request.block_table[needed:]
    first, last = request.num_published, request.num_computed_tokens // block_size
    request.num_published = last
    return request.block_table[first:last]
