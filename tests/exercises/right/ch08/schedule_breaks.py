# exercise: 08.1
"""while True and breaks."""

def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running:
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if n > 0:
            scheduled.append((request, n))
            budget -= n
    while True:
        if not (waiting and budget > 0) or len(running) >= max_num_seqs:
            break
        request = waiting[0]
        if not admit(request):
            break
        del waiting[0]
        running.append(request)
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        scheduled.append((request, n))
        budget -= n
    return scheduled
