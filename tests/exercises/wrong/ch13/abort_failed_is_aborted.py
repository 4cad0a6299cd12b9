# exercise: 13.5
# says: has already ended
"""A failed request is aborted."""

import asyncio


async def send_all(request, client):
    try:
        async for piece in request:
            await client.send(piece)
    except BaseException:
        request.abort()
        raise


async def stream(engine, client, prompt):
    request = engine.submit(prompt)
    sending = asyncio.create_task(send_all(request, client))
    gone = asyncio.create_task(client.disconnected())
    try:
        await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not gone.done():
            sending.result()
    finally:
        sending.cancel()
        gone.cancel()
