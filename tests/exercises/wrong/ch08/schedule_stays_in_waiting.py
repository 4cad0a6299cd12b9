# exercise: 08.1
# says: moves from
"""The admitted is scheduled, but stays in `waiting` and never gets into `running`."""


def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running:
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if n:
            scheduled.append((request, n))
            budget -= n
    places = max_num_seqs - len(running)
    for request in waiting[:places]:
        if not budget or not admit(request):
            break
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        scheduled.append((request, n))
        budget -= n
    return scheduled
