# exercise: 10.5
"""An index, and one token after another."""


def commit(request, sampled, block_size):
    i, drafts = 0, list(request.drafts)
    while True:
        request.append(sampled[i])
        if request.finished or i == len(drafts) or sampled[i] != drafts[i]:
            break
        i += 1
    request.num_computed_tokens = request.num_computed_tokens - len(drafts) + i
    request.drafts = []
    end = request.num_computed_tokens // block_size
    blocks = [request.block_table[b] for b in range(request.num_published, end)]
    request.num_published += len(blocks)
    return blocks
