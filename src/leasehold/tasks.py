"""Begins and ends tasks of the event loop."""

import asyncio
from collections.abc import Coroutine
from typing import Final

AGAIN_SECONDS: Final = 1.0
"""A task may swallow a cancellation: what it calls may take it for a timeout of its own. Then it is cancelled again."""


def begun(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[object, object, None]) -> "asyncio.Task[None]":
    """A task for `coroutine`. If this raises, the coroutine does not run.

    By itself asyncio may schedule a task and then fail to register it, so that it runs though its caller was told that
    it does not.
    """
    try:
        return loop.create_task(coroutine)
    except BaseException:
        coroutine.close()
        raise


async def cancelled(*tasks: "asyncio.Task[None]") -> None:
    """Cancel tasks and wait until they have ended, however they do."""
    left: set[asyncio.Task[None]] = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
