# exercise: 08.4
# says: memory.free(b) is called for a request that holds no block
"""The blocks of the asker go back, not the victim's."""

def make_room(request, running, waiting, memory):
    while not memory.grow(request):
        victim = running.pop()
        memory.free(request)
        victim.num_computed_tokens = 0
        waiting.insert(0, victim)
        if victim is request:
            return False
    return True
