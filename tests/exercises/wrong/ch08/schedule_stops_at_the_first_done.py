# exercise: 08.1
# says: fit whole gets a chunk
"""A running request that misses nothing ends the loop."""

def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running:
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if n > 0:
            scheduled.append((request, n))
            budget -= n
        else:
            break
    while waiting and budget > 0 and len(running) < max_num_seqs and admit(waiting[0]):
        request = waiting.pop(0)
        running.append(request)
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        scheduled.append((request, n))
        budget -= n
    return scheduled
