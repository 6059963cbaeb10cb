"""Ends tasks of the event loop."""

import asyncio
from typing import Final

AGAIN_SECONDS: Final = 1.0
"""A task may swallow a cancellation: what it calls may take it for a timeout of its own. Then it is cancelled again."""


async def cancelled(*tasks: "asyncio.Task[None]") -> None:
    """Cancel tasks and wait until they have ended, however they do."""
    left: set[asyncio.Task[None]] = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
