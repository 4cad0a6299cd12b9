# exercise: 10.5
# says: token_ids itself
"""The drafts are written into token_ids."""


def commit(request, sampled, block_size):
    drafts, request.drafts = request.drafts, []
    request.token_ids.extend(drafts)
    accepted = 0
    while accepted < len(drafts) and sampled[accepted] == drafts[accepted]:
        accepted += 1
    del request.token_ids[len(request.token_ids) - len(drafts) + accepted :]
    request.append(sampled[accepted])
    request.num_computed_tokens = len(request.token_ids) - 1
    first, last = request.num_published, request.num_computed_tokens // block_size
    request.num_published = last
    return request.block_table[first:last]
