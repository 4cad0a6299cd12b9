# exercise: 08.4
# says: without need
"""One try after each victim, and none before."""

def make_room(request, running, waiting, memory):
    while True:
        victim = running.pop()
        memory.free(victim)
        victim.num_computed_tokens = 0
        waiting.insert(0, victim)
        if victim is request:
            return False
        if memory.grow(request):
            return True
    return True
