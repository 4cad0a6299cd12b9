# exercise: 08.1
# says: fit whole gets a chunk
"""Who does not fit into the budget whole waits for the next step."""


def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []
    for request in running:
        need = request.num_tokens - request.num_computed_tokens
        if need > budget:
            break
        scheduled.append((request, need))
        budget -= need
    while waiting and len(running) < max_num_seqs:
        need = waiting[0].num_tokens - waiting[0].num_computed_tokens
        if need > budget or not admit(waiting[0]):
            break
        request = waiting.pop(0)
        running.append(request)
        scheduled.append((request, need))
        budget -= need
    return scheduled
