# exercise: 13.5
# says: and its request goes on
"""A cancelled handler waits for its shielded task."""

import asyncio


async def work(request, client):
    async for piece in request:
        await client.send(piece)


async def watch(request, client):
    await client.disconnected()
    if not request.finished:
        request.abort()


async def stream(engine, client, prompt):
    request = engine.submit(prompt)
    watching = asyncio.create_task(watch(request, client))
    sending = asyncio.create_task(work(request, client))
    try:
        await asyncio.shield(sending)
    except ConnectionError:
        if not request.finished:
            request.abort()
    finally:
        watching.cancel()
