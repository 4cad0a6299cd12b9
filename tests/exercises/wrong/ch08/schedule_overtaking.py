# exercise: 08.1
# says: overtake
"""Who finds no memory is skipped, and a smaller one behind is tried."""


def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running:
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if n:
            scheduled.append((request, n))
            budget -= n
    for request in list(waiting):
        if not budget or len(running) >= max_num_seqs:
            break
        if admit(request):
            waiting.remove(request)
            running.append(request)
            n = min(request.num_tokens - request.num_computed_tokens, budget)
            scheduled.append((request, n))
            budget -= n
    return scheduled
