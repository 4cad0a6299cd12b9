# exercise: 13.5
"""Each piece is awaited together with the client."""

import asyncio


async def stream(engine, client, prompt):
    request = engine.submit(prompt)
    gone = asyncio.ensure_future(client.disconnected())
    pending = set()

    async def first_of(coroutine):
        """Return whether the coroutine was faster than the client's end."""
        task = asyncio.ensure_future(coroutine)
        pending.add(task)
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        return task if task.done() and not gone.done() else None

    try:
        while (piece := await first_of(anext(request, None))) and piece.result() is not None:
            sent = await first_of(client.send(piece.result()))
            if sent is None:
                break
            sent.result()
    except ConnectionError:
        return
    finally:
        for task in [*pending, gone]:
            task.cancel()
        if not request.finished:
            request.abort()
