# exercise: 13.5
# says: only when a piece comes
"""The client is looked for at each piece."""

import asyncio


async def stream(engine, client, prompt):
    request = engine.submit(prompt)
    gone = asyncio.create_task(client.disconnected())
    try:
        async for piece in request:
            if gone.done():
                break
            await client.send(piece)
    except ConnectionError:
        pass
    finally:
        gone.cancel()
        if not request.finished:
            request.abort()
