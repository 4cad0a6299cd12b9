# exercise: 08.4
# says: oldest
"""The oldest gives way: it has had its turn."""


def make_room(request, running, waiting, memory):
    while not memory.grow(request):
        victim = running.pop(0)
        memory.free(victim)
        victim.num_computed_tokens = 0
        waiting.insert(0, victim)
        if victim is request:
            return False
    return True
