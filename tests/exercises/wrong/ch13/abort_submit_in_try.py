# exercise: 13.5
# says: The error of submit must
"""request is not bound if submit refuses."""

import asyncio


async def send_all(request, client):
    async for piece in request:
        await client.send(piece)


async def stream(engine, client, prompt):
    try:
        request = engine.submit(prompt)
        sending = asyncio.create_task(send_all(request, client))
        gone = asyncio.create_task(client.disconnected())
        await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not gone.done():
            sending.result()
    except ConnectionError:
        pass
    finally:
        if not request.finished:
            request.abort()
        sending.cancel()
        gone.cancel()
