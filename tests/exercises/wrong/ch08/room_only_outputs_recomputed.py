# exercise: 08.4
# says: prompt are lost too
"""Only the outputs are marked as not computed."""


def make_room(request, running, waiting, memory):
    while not memory.grow(request):
        victim = running.pop()
        memory.free(victim)
        victim.num_computed_tokens = victim.num_prompt_tokens
        waiting.insert(0, victim)
        if victim is request:
            return False
    return True
