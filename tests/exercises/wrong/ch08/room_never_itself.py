# exercise: 08.4
# says: is the newest itself
"""Looks for a victim among the others only."""


def make_room(request, running, waiting, memory):
    while not memory.grow(request):
        others = [other for other in running if other is not request]
        if not others:
            return False
        victim = others[-1]
        running.remove(victim)
        memory.free(victim)
        victim.num_computed_tokens = 0
        waiting.insert(0, victim)
    return True
