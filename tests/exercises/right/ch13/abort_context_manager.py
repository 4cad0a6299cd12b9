# exercise: 13.5
"""A context manager owns the request."""

import asyncio
from contextlib import contextmanager, suppress


@contextmanager
def submitted(engine, prompt):
    request = engine.submit(prompt)
    try:
        yield request
    finally:
        if not request.finished:
            request.abort()


async def stream(engine, client, prompt):
    with submitted(engine, prompt) as request, suppress(ConnectionError):

        async def pieces():
            async for piece in request:
                await client.send(piece)

        tasks = [asyncio.create_task(pieces()), asyncio.create_task(client.disconnected())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[1] not in done:
                await tasks[0]
        finally:
            for task in tasks:
                task.cancel()
