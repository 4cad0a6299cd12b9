# exercise: 08.1
# says: all requests together
"""The budget is taken to be each request's own."""


def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running:
        scheduled.append((request, min(request.num_tokens - request.num_computed_tokens, budget)))
    while waiting and len(running) < max_num_seqs and admit(waiting[0]):
        request = waiting.pop(0)
        running.append(request)
        scheduled.append((request, min(request.num_tokens - request.num_computed_tokens, budget)))
    return scheduled
