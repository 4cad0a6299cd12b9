# exercise: 13.5
# says: async def
"""An ordinary function."""

def stream(engine, client, prompt):
    request = engine.submit(prompt)
    return request
