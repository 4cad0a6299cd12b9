# exercise: 13.5
"""The watcher cancels the sending task."""

import asyncio


async def stream(engine, client, prompt):
    request = engine.submit(prompt)
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch(client))
            try:
                async for piece in request:
                    await client.send(piece)
            finally:
                watching.cancel()
    except* (Gone, ConnectionError):
        pass
    except* Exception as errors:
        raise errors.exceptions[0] from None
    finally:
        if not request.finished:
            request.abort()


class Gone(Exception):
    pass


async def watch(client):
    await client.disconnected()
    raise Gone
