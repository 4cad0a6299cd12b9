# exercise: 08.1
# says: it gets a chunk of its prompt now
"""One token is kept back."""

def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running:
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if n > 0:
            scheduled.append((request, n))
            budget -= n
    while waiting and budget > 1 and len(running) < max_num_seqs and admit(waiting[0]):
        request = waiting.pop(0)
        running.append(request)
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        scheduled.append((request, n))
        budget -= n
    return scheduled
