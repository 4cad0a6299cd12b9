# exercise: 10.5
# says: sampled[i]
"""Draft i is compared with sampled[i + 1]."""


def commit(request, sampled, block_size):
    drafts, request.drafts = request.drafts, []
    request.append(sampled[0])
    for token, draft in zip(sampled[1:], drafts):
        if request.finished or token != draft:
            break
        request.append(token)
    request.num_computed_tokens = len(request.token_ids) - 1
    first, last = request.num_published, request.num_computed_tokens // block_size
    request.num_published = last
    return request.block_table[first:last]
