# exercise: 08.4
# says: as if its tokens were still in the cache
"""Only the asker begins again."""

def make_room(request, running, waiting, memory):
    while not memory.grow(request):
        victim = running.pop()
        memory.free(victim)
        if victim is request:
            victim.num_computed_tokens = 0
        waiting.insert(0, victim)
        if victim is request:
            return False
    return True
