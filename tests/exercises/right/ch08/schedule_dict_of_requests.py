# exercise: 08.1
"""Counted in a dict first."""

def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    left = {}
    for request in running:
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        left[id(request)] = n
        if left[id(request)]:
            scheduled.append((request, n))
            budget -= n
    while waiting and budget > 0 and len(running) < max_num_seqs and admit(waiting[0]):
        request = waiting.pop(0)
        running.append(request)
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        scheduled.append((request, n))
        budget -= n
    return scheduled
