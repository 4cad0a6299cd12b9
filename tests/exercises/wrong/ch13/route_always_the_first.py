# exercise: 13.4
# says: always 0
"""The first replica gets everything."""

def route(candidates, num_prompt_tokens):
    return 0
