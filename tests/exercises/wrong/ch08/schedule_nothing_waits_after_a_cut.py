# exercise: 08.1
# says: it gets a chunk of its prompt now
"""After a chunk of a running request nobody starts, though budget is left... it never is: no."""

def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running:
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if n > 0:
            scheduled.append((request, n))
            budget -= n
    while waiting and all(r.num_tokens - r.num_computed_tokens == n for r, n in scheduled) and len(running) == len(scheduled) and budget > 0 and len(running) < max_num_seqs and admit(waiting[0]):
        request = waiting.pop(0)
        running.append(request)
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        scheduled.append((request, n))
        budget -= n
    return scheduled
