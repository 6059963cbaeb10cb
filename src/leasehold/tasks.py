"""Start and cancel tasks of the event loop."""

import asyncio
from collections.abc import Coroutine
from typing import Final, Protocol

AGAIN_SECONDS: Final = 1.0
"""A task may swallow a cancellation, if the code that it awaits mistakes it for a timeout of its own. So it is
cancelled again after this time."""


class Cancellable(Protocol):
    """A task, or something else that can be cancelled. `cancel` may be called again."""

    def cancel(self) -> object: ...


def start_task(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[object, object, None]) -> "asyncio.Task[None]":
    """Start a task for `coroutine`. If this raises, the coroutine does not run.

    asyncio alone may schedule a task and then fail to register it. The task would run although the caller got an
    exception.
    """
    try:
        return loop.create_task(coroutine)
    except BaseException:
        coroutine.close()
        raise


async def cancel_and_wait(*tasks: "asyncio.Task[object]") -> None:
    """Cancel tasks and wait until they have ended, with or without an exception."""
    left: set[asyncio.Task[object]] = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
