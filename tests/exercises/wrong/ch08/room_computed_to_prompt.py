# exercise: 08.4
# says: no attribute 'prompt_token_ids'
"""The prompt stays computed."""

def make_room(request, running, waiting, memory):
    while not memory.grow(request):
        victim = running.pop()
        memory.free(victim)
        victim.num_computed_tokens = min(victim.num_computed_tokens, len(victim.prompt_token_ids))
        waiting.insert(0, victim)
        if victim is request:
            return False
    return True
