# exercise: 08.1
# says: come before waiting ones
"""New requests first, so that their users wait less for the first token."""


def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    while waiting and budget and len(running) < max_num_seqs and admit(waiting[0]):
        request = waiting.pop(0)
        running.append(request)
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        scheduled.append((request, n))
        budget -= n
    admitted = [request for request, _ in scheduled]
    for request in running:
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if request not in admitted and n:
            scheduled.append((request, n))
            budget -= n
    return scheduled
