# exercise: 08.4
"""With a flag."""

def make_room(request, running, waiting, memory):
    grown = memory.grow(request)
    while not grown:
        victim = running.pop()
        memory.free(victim)
        victim.num_computed_tokens = 0
        waiting.insert(0, victim)
        if victim is request:
            break
        grown = memory.grow(request)
    return grown
