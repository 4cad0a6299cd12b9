# exercise: 08.1
"""The budget is what the sum of those scheduled leaves; ends early when it is spent."""


def schedule(running, waiting, budget, max_num_seqs, admit):
    scheduled = []

    def left():
        return budget - sum(n for _, n in scheduled)

    def missing(request):
        return request.num_tokens - request.num_computed_tokens

    for request in running:
        if left() == 0:
            return scheduled
        scheduled += [(request, min(missing(request), left()))] if missing(request) else []
    for _ in range(max_num_seqs - len(running)):
        if not waiting or left() == 0:
            break
        first, *others = waiting
        if admit(first) is False:
            break
        waiting[:] = others
        running += [first]
        scheduled.append((first, min(missing(first), left())))
    return scheduled
