# exercise: 13.5
# says: still waits in the queue
"""The client is watched from the first piece on."""

import asyncio


async def send_all(first, request, client):
    await client.send(first)
    async for piece in request:
        await client.send(piece)


async def stream(engine, client, prompt):
    request = engine.submit(prompt)
    gone = sending = None
    try:
        first = await anext(aiter(request), None)
        if first is None:
            return
        sending = asyncio.create_task(send_all(first, request, client))
        gone = asyncio.create_task(client.disconnected())
        await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not gone.done():
            sending.result()
    except ConnectionError:
        pass
    finally:
        for task in (sending, gone):
            if task:
                task.cancel()
        if not request.finished:
            request.abort()
