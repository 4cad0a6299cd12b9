# exercise: 13.5
# says: while a piece is being sent, and nothing happens
"""The client is not watched while a piece is sent to it."""

import asyncio


async def send(client, piece):
    try:
        await client.send(piece)
    except ConnectionError:
        await asyncio.sleep(3600)


async def stream(engine, client, prompt):
    request = engine.submit(prompt)
    gone = asyncio.create_task(client.disconnected())
    pieces = aiter(request)
    piece = None
    try:
        while True:
            piece = asyncio.ensure_future(anext(pieces, None))
            await asyncio.wait({piece, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() or piece.result() is None:
                return
            await send(client, piece.result())
    finally:
        gone.cancel()
        piece.cancel()
        if not request.finished:
            request.abort()
