# exercise: 13.4
# says: the length of the prompt
"""The prompt's length chooses the replica."""

def route(candidates, num_prompt_tokens):
    return num_prompt_tokens % len(candidates)
