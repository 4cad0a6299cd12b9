# exercise: 08.4
"""Slices."""

def make_room(request, running, waiting, memory):
    while not memory.grow(request):
        victim = running[-1]
        del running[-1:]
        memory.free(victim)
        victim.num_computed_tokens = 0
        waiting[:0] = [victim]
        if victim is request:
            return False
    return True
