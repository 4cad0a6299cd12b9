# exercise: 10.5
"""zip_longest."""

from itertools import zip_longest


def commit(request, sampled, block_size):
    for token, draft in zip_longest(sampled, request.drafts):
        request.append(token)
        if request.finished or token != draft:
            break
    request.drafts = []
    request.num_computed_tokens = len(request.token_ids) - 1
    blocks = []
    while (request.num_published + 1) * block_size <= request.num_computed_tokens:
        blocks.append(request.block_table[request.num_published])
        request.num_published += 1
    return blocks
