# exercise: 13.5
# says: is never aborted
"""A client that has left is noticed, and its request goes on."""

async def stream(engine, client, prompt):
    request = engine.submit(prompt)
    try:
        async for piece in request:
            await client.send(piece)
    except ConnectionError:
        pass
