# exercise: 08.4
# says: without need
"""Makes room first and asks afterwards."""


def make_room(request, running, waiting, memory):
    victim = running.pop()
    memory.free(victim)
    victim.num_computed_tokens = 0
    waiting.insert(0, victim)
    if victim is request:
        return False
    return memory.grow(request) or make_room(request, running, waiting, memory)
