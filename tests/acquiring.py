"""Acquires locks in coroutines."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from leasehold.errors import ServiceError
from leasehold.model import Acquire, Keyed, Lease, Leased, Outcome, Replayed
from leasehold.store.batch import Done
from leasehold.store.lock_queues import IsConnected, LockQueues, Waiter


class HasAcquire(Protocol):
    """A store, or its queues."""

    @property
    def acquire(self) -> Callable[[Acquire | Keyed, float, Done, IsConnected], Waiter]: ...


async def acquired(
    store: HasAcquire | LockQueues,
    operation: Acquire | Keyed,
    wait_seconds: float,
    is_connected: IsConnected = lambda: True,
) -> Lease:
    """The lease; see `LockQueues.acquire`. Raises its errors, and CancelledError if the caller is not connected."""
    result: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()

    def done(outcome: Outcome | ServiceError) -> None:
        if result.cancelled():
            return
        if isinstance(outcome, ServiceError):
            result.set_exception(outcome)
        else:
            if isinstance(outcome, Replayed):
                outcome = outcome.outcome
            assert isinstance(outcome, Leased)
            result.set_result(outcome.lease)

    def is_still_connected() -> bool:
        return is_connected() or not result.cancel()

    waiter = store.acquire(operation, wait_seconds, done, is_still_connected)
    try:
        return await result
    except asyncio.CancelledError:
        waiter.cancel()
        raise
