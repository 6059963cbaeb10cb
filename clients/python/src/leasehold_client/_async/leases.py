"""A lease: how long it certainly lasts, its renewal, and its fenced writes."""

from __future__ import annotations

from leasehold_client.errors import LeaseholdError, LeaseLost, NoSuchNamespace
from leasehold_client.protocol import locks
from leasehold_client.protocol.lease_term import LeaseTerm
from leasehold_client.records import Grant
from leasehold_client.values import Json

from . import runtime
from .sending import AsyncSender
from .writes import AsyncFence, AsyncWrites

RELEASE_SECONDS = 5.0
"""How long the end of a block tries to release the lease, which ends by itself if this fails."""


class AsyncLease(AsyncWrites, AsyncFence):
    """A lease on a lock. Its writes are fenced: the service refuses them once the lease is not alive.

    `token`: the fencing token, which grows with each acquisition, for other systems that compare it. `lease_id` is a
    secret.
    """

    def __init__(self, sender: AsyncSender, grant: Grant, sent_at: float) -> None:
        """`sent_at`: the clock before the request was sent."""
        super().__init__(sender, self)
        self.name = grant.lock
        self.lease_id: str = grant.lease_id
        self.token = grant.token
        self.owner: Json = grant.owner
        self._term = LeaseTerm(sent_at, grant.ttl)
        self._loss: LeaseLost | None = None
        self._is_released = False

    @property
    def ttl(self) -> float:
        return self._term.ttl_seconds

    @property
    def remaining(self) -> float:
        """Seconds for which the lease certainly lasts; 0 if it is lost. No request is made."""
        if self._loss is not None or self._is_released:
            return 0.0
        return max(self._term.deadline - runtime.clock(), 0.0)

    @property
    def lost(self) -> bool:
        """Whether the lease is over, or may be. No request is made."""
        return self.remaining <= 0.0

    def check(self) -> None:
        """Raises LeaseLost if the lease is over, or may be. No request is made."""
        if self._loss is not None:
            raise self._loss
        if self._is_released:
            raise LeaseLost(f"the lease on {self.name!r} was released")
        if self.lost:
            raise LeaseLost(f"the lease on {self.name!r} was not renewed in time")

    def lose(self, error: LeaseLost) -> None:
        self._loss = self._loss or error

    async def renew(self, ttl: float | None = None) -> None:
        """Let the lease last `ttl` seconds from now; without it, as long as before. Raises LeaseLost.

        The block of a lock does this by itself.
        """
        self.check()
        sent_at = runtime.clock()
        request = locks.renew(self.name, self.lease_id, ttl=ttl)
        try:
            grant = locks.read_grant(await self._sender.send(request, within_seconds=self.remaining))
        except LeaseLost as error:
            self.lose(error)
            raise
        except NoSuchNamespace as error:
            loss = LeaseLost(f"the lease on {self.name!r} has ended with its namespace")
            self.lose(loss)
            raise loss from error
        self.extend(sent_at, grant.ttl)

    def extend(self, sent_at: float, ttl_seconds: float) -> None:
        """The service has renewed the lease, in a response to a request of `sent_at`."""
        self._term = self._term.renewed(sent_at, ttl_seconds)

    async def release(self) -> None:
        """End the lease now. Raises LeaseLost if it was over before. The block of a lock does this by itself."""
        self.check()
        try:
            seconds = min(self.remaining, RELEASE_SECONDS)
            await self._sender.send(locks.release(self.name, self.lease_id), within_seconds=seconds)
        except LeaseholdError as error:
            loss = error if isinstance(error, LeaseLost) else LeaseLost(f"the lease on {self.name!r} is given up")
            self.lose(loss)
            raise
        self._is_released = True
