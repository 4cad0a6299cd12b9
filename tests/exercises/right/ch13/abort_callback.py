# exercise: 13.5
"""A callback of the watcher cancels the sender."""

import asyncio


async def stream(engine, client, prompt):
    request = engine.submit(prompt)

    async def send():
        async for piece in request:
            await client.send(piece)

    sender = asyncio.create_task(send())
    watcher = asyncio.create_task(client.disconnected())
    watcher.add_done_callback(lambda task: None if task.cancelled() else sender.cancel())
    try:
        await sender
    except ConnectionError:
        pass
    except asyncio.CancelledError:
        if not watcher.done():
            raise
    finally:
        sender.cancel()
        watcher.cancel()
        await asyncio.gather(sender, watcher, return_exceptions=True)
        if not request.finished:
            request.abort()
