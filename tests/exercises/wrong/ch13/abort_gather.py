# exercise: 13.5
# says: does not return after
"""gather waits for both."""

import asyncio


async def send_all(request, client):
    async for piece in request:
        await client.send(piece)


async def stream(engine, client, prompt):
    request = engine.submit(prompt)
    sending = asyncio.create_task(send_all(request, client))
    gone = asyncio.create_task(client.disconnected())
    try:
        await asyncio.gather(sending, gone)
    except ConnectionError:
        pass
    finally:
        sending.cancel()
        gone.cancel()
        if not request.finished:
            request.abort()
