"""Tasks: sleep, exclude, run beside the caller, end the caller's block. `_sync/runtime.py` is the same for threads."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

import httpx2

HttpClient = httpx2.AsyncClient
HttpResponse = httpx2.Response
Lock = asyncio.Lock
sleep = asyncio.sleep
log: Final = logging.getLogger("leasehold_client")

TokenSource = Callable[[], "str | Awaitable[str]"]


async def ask(source: TokenSource) -> str:
    """Call a function that may be a coroutine function."""
    token = source()
    return await token if inspect.isawaitable(token) else token


def clock() -> float:
    """Seconds. It also runs while the machine is suspended, where the system has such a clock, as leases do."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Signal:
    """Set once, by the owner; waited for by what runs in the background."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for the signal for so long. Whether it is set."""
        waiting = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait([waiting], timeout=max(seconds, 0.0))
        finally:
            waiting.cancel()
        return self._event.is_set()


class Background:
    """A coroutine that runs beside the caller until it ends or `stop` is called."""

    def __init__(self, run: Callable[[], Coroutine[object, object, None]], name: str) -> None:
        self._task = asyncio.get_running_loop().create_task(run(), name=name)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


class BodyGuard:
    """Cancels the task that created it when a lease is lost, as `asyncio.timeout` does when time is up."""

    def __init__(self, remaining: Callable[[], float]) -> None:
        """`remaining`: the seconds until the lease is over."""
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancellations = _cancellations(task)
        self._remaining = remaining
        self._has_cancelled = False
        self._is_closed = False
        self._timer = asyncio.get_running_loop().call_later(remaining(), self._check_deadline)

    def _check_deadline(self) -> None:
        remaining = self._remaining()
        if remaining > 0:
            self._timer = asyncio.get_running_loop().call_later(remaining, self._check_deadline)
        else:
            self.cancel()

    def cancel(self) -> None:
        """The lease is lost: cancel the body, once, unless it has ended."""
        if not self._is_closed and not self._has_cancelled:
            self._has_cancelled = True
            self._task.cancel()

    def close(self, kind: type[BaseException] | None) -> bool:
        """The body has ended. Whether it ended by our cancellation, and by no other one at the same time."""
        self._is_closed = True
        self._timer.cancel()
        if not self._has_cancelled:
            return False
        if hasattr(self._task, "uncancel"):
            others = self._task.uncancel() > self._cancellations
            return not others and kind is asyncio.CancelledError
        return kind is asyncio.CancelledError


def _cancellations(task: asyncio.Task[object]) -> int:
    """How many cancellations of the task were requested. Python 3.10 does not count them."""
    return task.cancelling() if hasattr(task, "cancelling") else 0
