# exercise: 08.4
# says: newer one
"""Who finds no room gives way itself."""


def make_room(request, running, waiting, memory):
    if memory.grow(request):
        return True
    running.remove(request)
    memory.free(request)
    request.num_computed_tokens = 0
    waiting.insert(0, request)
    return False
