# exercise: 13.5
# says: from time to time
"""The handler looks for the client once per second."""

import asyncio


async def send_all(request, client):
    async for piece in request:
        await client.send(piece)


async def stream(engine, client, prompt):
    request = engine.submit(prompt)
    sending = asyncio.create_task(send_all(request, client))
    gone = asyncio.create_task(client.disconnected())
    try:
        while not sending.done() and not gone.done():
            await asyncio.sleep(1)
        if sending.done() and not gone.done():
            sending.result()
    except ConnectionError:
        pass
    finally:
        sending.cancel()
        gone.cancel()
        if not request.finished:
            request.abort()
