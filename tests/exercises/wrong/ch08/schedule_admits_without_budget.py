# exercise: 08.1
# says: nothing of the budget
"""Admits whoever has a place, though nothing of the budget is left for it."""


def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running:
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if n:
            scheduled.append((request, n))
            budget -= n
    while waiting and len(running) < max_num_seqs and admit(waiting[0]):
        request = waiting.pop(0)
        running.append(request)
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if n:
            scheduled.append((request, n))
            budget -= n
    return scheduled
