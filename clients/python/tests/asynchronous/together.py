"""Several things at the same time, as tasks. `synchronous/together.py` is the same with threads."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

R = TypeVar("R")

LIMIT_SECONDS = 60.0
"""Longer than anything takes that a test waits for, also on a busy machine."""


async def together(*functions: Callable[[], Awaitable[R]]) -> list[R]:
    """Run all of them, and return what they return."""
    return list(await asyncio.gather(*(function() for function in functions)))


async def beside(function: Callable[[], R]) -> R:
    """Run a function that blocks, so that the other tasks go on."""
    return await asyncio.to_thread(function)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it is true. It must not block."""
    give_up_at = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < give_up_at, "the awaited condition did not become true in time"
        await asyncio.sleep(0.01)
