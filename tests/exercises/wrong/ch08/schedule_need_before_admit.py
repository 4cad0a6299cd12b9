# exercise: 08.1
# says: prefix
"""What a request misses is looked up before `admit`."""


def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running:
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if n:
            scheduled.append((request, n))
            budget -= n
    while waiting and budget and len(running) < max_num_seqs:
        request = waiting[0]
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if not admit(request):
            break
        waiting.remove(request)
        running.append(request)
        scheduled.append((request, n))
        budget -= n
    return scheduled
