# exercise: 08.1
# says: max_num_seqs
"""max_num_seqs is forgotten."""


def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running:
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        if n:
            scheduled.append((request, n))
            budget -= n
    while waiting and budget and admit(waiting[0]):
        request = waiting.pop(0)
        running.append(request)
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        scheduled.append((request, n))
        budget -= n
    return scheduled
