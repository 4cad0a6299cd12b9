# exercise: 13.5
# says: waits for the end of the generation
"""The client is looked for when the generation has ended."""

import asyncio


async def stream(engine, client, prompt):
    request = engine.submit(prompt)
    gone = asyncio.create_task(client.disconnected())
    try:
        async for piece in request:
            if not gone.done():
                await client.send(piece)
    finally:
        gone.cancel()
        if not request.finished:
            request.abort()
