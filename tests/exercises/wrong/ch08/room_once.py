# exercise: 08.4
# says: more than one victim
"""One victim is taken to be enough."""


def make_room(request, running, waiting, memory):
    if not memory.grow(request):
        victim = running.pop()
        memory.free(victim)
        victim.num_computed_tokens = 0
        waiting.insert(0, victim)
        if victim is request:
            return False
        memory.grow(request)
    return True
