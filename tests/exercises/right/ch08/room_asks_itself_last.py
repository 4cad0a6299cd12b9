# exercise: 08.4
"""For and else."""

def make_room(request, running, waiting, memory):
    for victim in running[::-1]:
        if memory.grow(request):
            return True
        running.remove(victim)
        waiting.insert(0, victim)
        victim.num_computed_tokens = 0
        memory.free(victim)
        if victim is request:
            return False
    return memory.grow(request)
