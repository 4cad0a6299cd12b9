# exercise: 08.4
# says: as if its tokens were still in the cache
"""It stays marked as computed."""


def make_room(request, running, waiting, memory):
    while not memory.grow(request):
        victim = running.pop()
        memory.free(victim)
        waiting.insert(0, victim)
        if victim is request:
            return False
    return True
