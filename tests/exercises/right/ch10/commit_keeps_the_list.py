# exercise: 10.5
"""The same list of drafts, emptied from its front."""


def commit(request, sampled, block_size):
    sampled = list(sampled)
    while sampled:
        token = sampled.pop(0)
        request.append(token)
        if request.finished or not request.drafts or request.drafts.pop(0) != token:
            break
    del request.drafts[:]
    request.num_computed_tokens = len(request.token_ids[:-1])
    full = request.num_computed_tokens // block_size
    request.num_published, before = full, request.num_published
    return request.block_table[before:full]
