"""Threads: sleep, exclude, run beside the caller. `_async/runtime.py` is the same for tasks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import httpx2

HttpClient = httpx2.Client
HttpResponse = httpx2.Response
Lock = threading.Lock
sleep = time.sleep
log: Final = logging.getLogger("leasehold_client")

TokenSource = Callable[[], str]


def ask(source: TokenSource) -> str:
    return source()


def clock() -> float:
    """Seconds. It also runs while the machine is suspended, where the system has such a clock, as leases do."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Signal:
    """Set once, by the owner; waited for by what runs in the background."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the signal for so long. Whether it is set."""
        return self._event.wait(max(seconds, 0.0))


class Background:
    """A function that runs on a thread beside the caller until it ends by itself: the owner sets its signal first."""

    def __init__(self, run: Callable[[], None], name: str) -> None:
        # A daemon, so that a program that ends within a block does not wait for the next renewal.
        self._thread = threading.Thread(target=run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._thread.join()


class BodyGuard:
    """Does nothing: a thread cannot be interrupted. The lease raises LeaseLost where it is used."""

    def __init__(self, remaining: Callable[[], float]) -> None:
        pass

    def cancel(self) -> None:
        pass

    def close(self, kind: type[BaseException] | None) -> bool:  # noqa: ARG002 - as for tasks
        return False
