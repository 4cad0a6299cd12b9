# exercise: 08.1
# says: as if it decoded
"""Whoever runs decodes: one token, even if its prompt is not done."""


def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running[:budget]:
        scheduled.append((request, 1))
        budget -= 1
    while waiting and budget and len(running) < max_num_seqs and admit(waiting[0]):
        request = waiting.pop(0)
        running.append(request)
        n = min(request.num_tokens - request.num_computed_tokens, budget)
        scheduled.append((request, n))
        budget -= n
    return scheduled
