# exercise: 10.5
# says: accepted drafts are lost
"""One token per step."""


def commit(request, sampled, block_size):
    request.drafts = []
    request.append(sampled[0])
    request.num_computed_tokens = len(request.token_ids) - 1
    first, last = request.num_published, request.num_computed_tokens // block_size
    request.num_published = last
    return request.block_table[first:last]
