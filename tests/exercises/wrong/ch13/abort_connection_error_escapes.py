# exercise: 13.5
# says: handler raises ConnectionError
"""The ConnectionError of send escapes."""

import asyncio


async def send_all(request, client):
    async for piece in request:
        await client.send(piece)


async def stream(engine, client, prompt):
    request = engine.submit(prompt)
    sending = asyncio.create_task(send_all(request, client))
    gone = asyncio.create_task(client.disconnected())
    try:
        await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
    finally:
        sending.cancel()
        gone.cancel()
        if not request.finished:
            request.abort()
