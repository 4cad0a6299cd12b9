# exercise: 08.4
# says: shown to its user
"""Starts again from the prompt: the outputs are thrown away."""


def make_room(request, running, waiting, memory):
    while not memory.grow(request):
        victim = running.pop()
        memory.free(victim)
        victim.num_computed_tokens = 0
        del victim.token_ids[victim.num_prompt_tokens :]
        waiting.insert(0, victim)
        if victim is request:
            return False
    return True
