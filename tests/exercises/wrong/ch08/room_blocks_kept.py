# exercise: 08.4
# says: still holds its blocks
"""The victim is moved to `waiting`, its blocks are forgotten."""


def make_room(request, running, waiting, memory):
    if not memory.grow(request):
        victim = running.pop()
        victim.num_computed_tokens = 0
        waiting.insert(0, victim)
        return victim is not request and memory.grow(request)
    return True
