# exercise: 08.4
# says: end of the queue
"""The victim queues at the end like a new arrival."""


def make_room(request, running, waiting, memory):
    while not memory.grow(request):
        victim = running.pop()
        memory.free(victim)
        victim.num_computed_tokens = 0
        waiting.append(victim)
        if victim is request:
            return False
    return True
