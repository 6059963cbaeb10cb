"""Several things at the same time, as threads. `asynchronous/together.py` is the same with tasks."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")

LIMIT_SECONDS = 60.0
"""Longer than anything takes that a test waits for, also on a busy machine."""


def together(*functions: Callable[[], R]) -> list[R]:
    """Run all of them, and return what they return."""
    with ThreadPoolExecutor(len(functions)) as threads:
        return [future.result() for future in [threads.submit(function) for function in functions]]


def beside(function: Callable[[], R]) -> R:
    return function()


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it is true."""
    give_up_at = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < give_up_at, "the awaited condition did not become true in time"
        time.sleep(0.01)
