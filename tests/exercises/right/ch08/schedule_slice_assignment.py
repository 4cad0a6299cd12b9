# exercise: 08.1
"""Moved all at once at the end."""

def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running:
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if n > 0:
            scheduled.append((request, n))
            budget -= n
    started = 0
    while started < len(waiting) and budget > 0 and len(running) + started < max_num_seqs and admit(waiting[started]):
        request = waiting[started]
        started += 1
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        scheduled.append((request, n))
        budget -= n
    running += waiting[:started]
    del waiting[:started]
    return scheduled
