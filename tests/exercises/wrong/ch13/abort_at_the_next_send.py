# exercise: 13.5
# says: only when a piece comes
"""A failed send is the only sign."""

async def stream(engine, client, prompt):
    request = engine.submit(prompt)
    try:
        async for piece in request:
            await client.send(piece)
    except ConnectionError:
        pass
    finally:
        if not request.finished:
            request.abort()
