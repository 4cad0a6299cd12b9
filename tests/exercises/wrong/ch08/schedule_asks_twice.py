# exercise: 08.1
# says: admit(u) is called twice in one step
"""admit is asked to see, and again to do."""

def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running:
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if n > 0:
            scheduled.append((request, n))
            budget -= n
    while waiting and budget > 0 and len(running) < max_num_seqs and admit(waiting[0]):
        admit(waiting[0])
        request = waiting.pop(0)
        running.append(request)
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        scheduled.append((request, n))
        budget -= n
    return scheduled
