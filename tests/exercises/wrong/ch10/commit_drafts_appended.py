# exercise: 10.5
# says: a rejected draft too
"""All drafts are appended to the text."""


def commit(request, sampled, block_size):
    drafts, request.drafts = request.drafts, []
    for draft in drafts:
        if not request.finished:
            request.append(draft)
    if not request.finished:
        request.append(sampled[-1])
    request.num_computed_tokens = len(request.token_ids) - 1
    first, last = request.num_published, request.num_computed_tokens // block_size
    request.num_published = last
    return request.block_table[first:last]
