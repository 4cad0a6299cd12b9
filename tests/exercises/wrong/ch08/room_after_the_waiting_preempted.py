# exercise: 08.4
# says: no attribute 'output_token_ids'
"""Behind who was preempted before."""

def make_room(request, running, waiting, memory):
    while not memory.grow(request):
        victim = running.pop()
        memory.free(victim)
        victim.num_computed_tokens = 0
        at = next((i for i, r in enumerate(waiting) if not r.output_token_ids), len(waiting))
        waiting.insert(at, victim)
        if victim is request:
            return False
    return True
