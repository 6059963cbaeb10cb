"""The block in which a lock is held: acquired at its beginning, renewed in the background, released at its end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from leasehold_client.errors import LeaseholdError, LeaseLost, LockHeld, LockNotFound, NoSuchNamespace
from leasehold_client.protocol import locks
from leasehold_client.values import Json

from . import runtime
from .leases import AsyncLease
from .sending import AsyncSender

RENEWALS_PER_TTL: Final = 3
SHORTEST_PAUSE_SECONDS: Final = 0.1
SLOT_WAIT_SECONDS: Final = 2.0
"""How long a client waits for one place of a semaphore before it looks at the others again."""


class AsyncHeldLock:
    """`with` holds one of these locks; a plain lock has one name, a semaphore several.

    - If the lease is lost, LeaseLost is raised at the end of the block, unless the block raises an exception of its
      own. The asynchronous client cancels the block at once. The synchronous one does not interrupt a thread: `check`
      and the writes of the lease raise LeaseLost.
    - If the lock cannot be released because the service does not respond, this is logged, and the lease ends by itself.
    """

    def __init__(
        self,
        sender: AsyncSender,
        names: Sequence[str],
        *,
        ttl: float,
        wait: float,
        owner: Json,
        renew_every: float | None,
    ) -> None:
        self._sender = sender
        self._names = names
        self._ttl = ttl
        self._wait = wait
        self._owner = owner
        self._renew_every = ttl / RENEWALS_PER_TTL if renew_every is None else renew_every

    async def __aenter__(self) -> AsyncLease:
        self._lease = lease = await self._acquire()
        self._guard = runtime.BodyGuard(lambda: lease.remaining)
        self._ending = runtime.Signal()
        self._renewals = runtime.Background(self._renew, f"renewal of {lease.name}")
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        was_cancelled = self._guard.close(kind)
        self._ending.set()
        await self._renewals.stop()
        is_free_to_raise = kind is None or was_cancelled
        try:
            await self._lease.release()
        except LeaseLost as loss:
            if is_free_to_raise:
                raise loss from None
        except (LockNotFound, NoSuchNamespace) as missing:
            if is_free_to_raise:
                raise LeaseLost(f"the lease on {self._lease.name!r} was ended") from missing
        except LeaseholdError as failure:
            runtime.log.warning("the lock %s was not released, and ends by itself: %s", self._lease.name, failure)

    async def _renew(self) -> None:
        lease = self._lease
        pause = self._renew_every
        while not await self._ending.wait(pause):
            try:
                await lease.renew()
                pause = self._renew_every
            except LeaseLost as loss:
                runtime.log.warning("the lease on %s is lost: %s", lease.name, loss.message)
                self._guard.cancel()
                return
            except LeaseholdError as error:
                runtime.log.warning(
                    "the lease on %s was not renewed; it ends in %.1f s: %s", lease.name, lease.remaining, error
                )
                pause = max(min(self._renew_every, lease.remaining), SHORTEST_PAUSE_SECONDS)

    # Acquire --------------------------------------------------------------------------------------------------

    async def _acquire(self) -> AsyncLease:
        if len(self._names) == 1:
            return await self._acquire_one(self._names[0], self._wait)
        give_up_at = runtime.clock() + self._wait
        while True:
            *others, last = random.sample(self._names, len(self._names))
            for name in others:
                lease = await self._try_one(name)
                if lease is not None:
                    return lease
            patience = max(give_up_at - runtime.clock(), 0.0)
            try:
                return await self._acquire_one(last, min(patience, SLOT_WAIT_SECONDS))
            except LockHeld:
                if runtime.clock() >= give_up_at:
                    raise

    async def _try_one(self, name: str) -> AsyncLease | None:
        try:
            return await self._acquire_one(name, 0.0)
        except LockHeld:
            return None

    async def _acquire_one(self, name: str, wait: float) -> AsyncLease:
        return await acquire(self._sender, name, ttl=self._ttl, wait=wait, owner=self._owner)


async def acquire(sender: AsyncSender, name: str, *, ttl: float, wait: float, owner: Json) -> AsyncLease:
    """Wait for a lock, in requests of up to 60 seconds. Raises LockHeld.

    A response that came late says little about how long the lease still lasts, because the time counts from before the
    request was sent. Such a lease is renewed before it is used.
    """
    give_up_at = runtime.clock() + wait
    while True:
        sent_at = runtime.clock()
        patience = min(max(give_up_at - sent_at, 0.0), locks.MAX_WAIT_SECONDS)
        try:
            response = await sender.send(locks.acquire(name, ttl=ttl, wait_seconds=patience, owner=owner))
        except LockHeld:
            if runtime.clock() >= give_up_at:
                raise
            continue
        lease = AsyncLease(sender, locks.read_grant(response), sent_at)
        if runtime.clock() - sent_at <= ttl / RENEWALS_PER_TTL:
            return lease
        if await _is_renewed(sender, lease):
            return lease


async def _is_renewed(sender: AsyncSender, lease: AsyncLease) -> bool:
    """Whether the lease is alive. Its own clock cannot tell, so the service is asked in any case."""
    sent_at = runtime.clock()
    try:
        grant = locks.read_grant(await sender.send(locks.renew(lease.name, lease.lease_id, ttl=None)))
    except LeaseLost:
        return False
    lease.extend(sent_at, grant.ttl)
    return True
