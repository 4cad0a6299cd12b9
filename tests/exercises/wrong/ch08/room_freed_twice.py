# exercise: 08.4
# says: memory.free(d) is called for a request that holds no block
"""The victim's blocks go back twice."""

def make_room(request, running, waiting, memory):
    while not memory.grow(request):
        victim = running.pop()
        memory.free(victim)
        memory.free(victim)
        victim.num_computed_tokens = 0
        waiting.insert(0, victim)
        if victim is request:
            return False
    return True
