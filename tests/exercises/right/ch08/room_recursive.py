# exercise: 08.4
"""One victim, then again."""


def make_room(request, running, waiting, memory):
    if memory.grow(request):
        return True
    newest = running[-1]
    del running[-1]
    newest.num_computed_tokens = 0
    memory.free(newest)
    waiting[:0] = [newest]
    return newest is not request and make_room(request, running, waiting, memory)
