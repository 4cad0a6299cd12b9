# exercise: 08.1
"""A helper for what both lists have in common; indices instead of a queue."""


def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled, left = [], [budget]

    def serve(request):
        n = min(request.num_tokens - request.num_computed_tokens, left[0])
        if n:
            scheduled.append((request, n))
        left[0] -= n

    for request in running:
        serve(request)
    moved = 0
    for request in waiting:
        if left[0] == 0 or len(running) + moved >= max_num_seqs or not admit(request):
            break
        moved += 1
        serve(request)
    running.extend(waiting[:moved])
    del waiting[:moved]
    return scheduled
