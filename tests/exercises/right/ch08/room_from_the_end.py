# exercise: 08.4
"""Walks from the newest to the request."""


def make_room(request, running, waiting, memory):
    for victim in running[::-1]:
        if memory.grow(request):
            break
        running.remove(victim)
        memory.free(victim)
        waiting.insert(0, victim)
        victim.num_computed_tokens = 0
        if victim is request:
            break
    return request in running
