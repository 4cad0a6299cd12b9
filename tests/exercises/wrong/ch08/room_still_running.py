# exercise: 08.4
# says: in both
"""The victim is put into `waiting` and left in `running`."""


def make_room(request, running, waiting, memory):
    others = list(running)
    while not memory.grow(request):
        victim = others.pop()
        memory.free(victim)
        victim.num_computed_tokens = 0
        waiting.insert(0, victim)
        if victim is request:
            return False
    return True
