"""Who waits for which lock: one queue a lock, first come, first served.

Only the first of a queue tries to acquire, through the write lane like everybody else; the others wait behind it. It
tries when it becomes the first, when the lock was set free (by this server or another), and when the lease that was in
its way has come to its end. So a waiter costs nothing while it waits, one is woken and not all, and whoever was woken
finds out by the commit itself whether the lock is really free.

A lease is never left with nobody: if a caller has gone by the time its attempt is committed, the lease is released.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from leasehold.completions import report
from leasehold.errors import ServiceError, unavailable
from leasehold.limits import MAX_ABANDONED_LEASES, MAX_WAITERS
from leasehold.model import Acquire, Held, Lease, Leased, Operation, Outcome, Release
from leasehold.rules import lock_held

Submit = Callable[[Operation, Callable[[Outcome | ServiceError], None]], None]

IsThere = Callable[[], bool]
"""Whether the caller is still connected. Asked at the grant, because the end of its connection may not be read yet."""

_MICROSECOND: Final = 1e-6
_MIN_PAUSE_SECONDS: Final = 0.001
"""Between two attempts on a lease that should have ended, by a clock that is not the engine's."""


class _Waiter:
    """One caller. `lease` becomes what it gets."""

    __slots__ = ("deadline", "is_patient", "is_there", "lease", "operation", "timer")

    def __init__(
        self,
        operation: Acquire,
        lease: asyncio.Future[Lease],
        is_there: IsThere,
        *,
        is_patient: bool,
        deadline: float,
    ) -> None:
        self.operation = operation
        self.lease = lease
        self.is_there = is_there
        self.is_patient = is_patient
        """Its time to wait is not over: it may be refused and stay."""
        self.deadline = deadline
        """When that time is over, by the loop's clock."""
        self.timer: asyncio.TimerHandle | None = None
        """Started when it really waits: behind others, or refused. Most get the lock at once, and a timer is dear."""


class _Queue:
    """Those who wait for one lock; there is one as long as somebody does."""

    __slots__ = ("attempt", "held", "is_woken", "lock", "timer", "waiters")

    def __init__(self, lock: str) -> None:
        self.lock = lock
        self.waiters: deque[_Waiter] = deque()
        self.attempt: _Waiter | None = None
        """Whose attempt is in the lane. It may have left the queue meanwhile."""
        self.is_woken = False
        """The lock may have been set free since that attempt was decided."""
        self.held: Held | None = None
        """What the last attempt found in its way."""
        self.timer: asyncio.TimerHandle | None = None


class LockQueues:
    """All queues of a store. `submit` is its write lane."""

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._queues: dict[str, _Queue] = {}
        self._abandoned: dict[str, Release] = {}
        """Leases that nobody knows of, by lease_id: to be released when the engine takes it. MAX_ABANDONED_LEASES."""
        self._stopped = False
        self._must_wake_all = False
        """An attempt could not be made; by `catch_up` it is."""

    def __len__(self) -> int:
        """All who wait."""
        return sum(len(queue.waiters) for queue in self._queues.values())

    def __bool__(self) -> bool:
        """Whether there is any queue, maybe with nothing but an attempt in the lane."""
        return bool(self._queues)

    def waiting_for(self, lock: str) -> int:
        queue = self._queues.get(lock)
        return 0 if queue is None else len(queue.waiters)

    async def acquire(self, operation: Acquire, wait_seconds: float, is_there: IsThere = lambda: True) -> Lease:
        """The lease, as soon as it is our turn and the lock is free.

        Raises `lock_held` when `wait_seconds` are over, `too_many_requests` if the queue is full, and what the lane
        raises. A caller that is cancelled leaves the queue. One that is not there at the grant is cancelled.
        """
        if self._stopped:
            raise _stopping()
        loop = asyncio.get_running_loop()
        queue = self._queues.setdefault(operation.lock, _Queue(operation.lock))
        if len(queue.waiters) >= MAX_WAITERS:
            raise ServiceError(
                "too_many_requests",
                "too many wait for this lock",
                details={"limit": MAX_WAITERS},
                headers={"Retry-After": "1"},
            )
        deadline = loop.time() + wait_seconds
        waiter = _Waiter(operation, loop.create_future(), is_there, is_patient=wait_seconds > 0, deadline=deadline)
        try:
            queue.waiters.append(waiter)
            if queue.waiters[0] is waiter:
                self._try(queue)
            elif waiter.is_patient:
                self._limit_patience(queue, waiter)
            else:
                self._look_again(queue)
            return await waiter.lease
        except ServiceError:
            raise
        except BaseException:
            self._leave(queue, waiter)
            raise
        finally:
            if waiter.timer is not None:
                waiter.timer.cancel()

    def wake(self, locks: Sequence[str] | None) -> None:
        """Locks were set free; None: any may have been. Never raises: the commit that set them free is over."""
        try:
            for lock in list(self._queues) if locks is None else locks:
                queue = self._queues.get(lock)
                if queue is not None:
                    self._try(queue)
        except Exception as failure:  # noqa: BLE001 - they are woken by `catch_up`
            self._must_wake_all = True
            report("those who wait for a lock could not be woken", failure)

    def stop(self) -> None:
        """Send all away, except for those whose attempt is in the lane: they hear what comes of it."""
        self._stopped = True
        for queue in list(self._queues.values()):
            for waiter in list(queue.waiters):
                waiter.is_patient = False
                if waiter is not queue.attempt:
                    self._finish(queue, waiter, _stopping())

    def catch_up(self) -> None:
        """Do what could not be done before: release what nobody holds, wake who was not woken. Called every second."""
        if self._must_wake_all:
            self._must_wake_all = False
            self.wake(None)
        for release in list(self._abandoned.values()):
            self._release(release)

    # Attempts -------------------------------------------------------------------------------------------------

    def _try(self, queue: _Queue) -> None:
        """Let the first attempt it, unless an attempt is under way, which is then repeated if it fails."""
        if queue.attempt is not None:
            queue.is_woken = True
            return
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        if queue.waiters:
            queue.is_woken = False
            first = queue.attempt = queue.waiters[0]
            try:
                self._submit(first.operation, partial(self._end_attempt, queue, first))
            except BaseException:
                queue.attempt = None  # it is not in the lane
                self._must_wake_all = True
                raise

    def _end_attempt(self, queue: _Queue, first: _Waiter, outcome: Outcome | ServiceError) -> None:
        """If it raises it is called again, with an error; what it had done by then is taken into account."""
        queue.attempt = None
        if isinstance(outcome, Leased):
            # For the others the lock is held from now on.
            queue.held = Held(outcome.lease, outcome.now)
            if not first.is_there():
                first.lease.cancel()
            self._finish(queue, first, outcome.lease)
            if first.lease.cancelled():
                self._abandon(first.operation)
        elif isinstance(outcome, Held):
            queue.held = outcome
            self._limit_patience(queue, first)
        else:
            assert isinstance(outcome, ServiceError)
            if outcome.is_outcome_unknown and not _has_lease(first):
                self._abandon(first.operation)
            self._finish(queue, first, outcome)
            queue.held, queue.is_woken = None, True  # nothing is known about the lock, so the next one tries
        if queue.held is not None:
            for waiter in [each for each in queue.waiters if not each.is_patient]:
                self._finish(queue, waiter, _stopping() if self._stopped else lock_held(queue.held))
        if not queue.waiters:
            self._forget(queue)
        elif queue.is_woken:
            self._try(queue)
        else:
            self._try_at_expiry(queue)

    def _try_at_expiry(self, queue: _Queue) -> None:
        assert queue.held is not None
        remaining = (queue.held.lease.expires_at - queue.held.now) * _MICROSECOND
        loop = asyncio.get_running_loop()
        queue.timer = loop.call_later(max(remaining, _MIN_PAUSE_SECONDS), self._try, queue)

    # Leaving the queue ----------------------------------------------------------------------------------------

    def _limit_patience(self, queue: _Queue, waiter: _Waiter) -> None:
        """From now on it waits, until its deadline. Its first attempt may have lasted longer than that."""
        if waiter.timer is not None or waiter.lease.done() or not waiter.is_patient:
            return
        loop = asyncio.get_running_loop()
        waiter.is_patient = loop.time() < waiter.deadline
        if waiter.is_patient:
            waiter.timer = loop.call_at(waiter.deadline, self._end_patience, queue, waiter)

    def _end_patience(self, queue: _Queue, waiter: _Waiter) -> None:
        waiter.is_patient = False
        if not waiter.lease.done():
            self._look_again(queue)

    def _look_again(self, queue: _Queue) -> None:
        """Have the first try, and all whose time is over refused by what it finds: the lease may have been renewed."""
        if queue.attempt is None:
            self._try(queue)

    def _leave(self, queue: _Queue, waiter: _Waiter) -> None:
        """The caller has gone, maybe in the very moment of its success."""
        if _has_lease(waiter):
            self._abandon(waiter.operation)
        waiter.lease.cancel()
        self._remove(queue, waiter)

    def _finish(self, queue: _Queue, waiter: _Waiter, result: Lease | ServiceError) -> None:
        if not waiter.lease.done():
            if isinstance(result, ServiceError):
                waiter.lease.set_exception(result)
            else:
                waiter.lease.set_result(result)
        self._remove(queue, waiter)

    def _remove(self, queue: _Queue, waiter: _Waiter) -> None:
        if waiter in queue.waiters:
            queue.waiters.remove(waiter)
        if not queue.waiters and queue.attempt is None:
            self._forget(queue)

    def _forget(self, queue: _Queue) -> None:
        """Nobody waits any more, and no attempt is under way."""
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        if self._queues.get(queue.lock) is queue:
            del self._queues[queue.lock]

    # Leases that nobody holds ---------------------------------------------------------------------------------

    def _abandon(self, operation: Acquire) -> None:
        release = Release(operation.lock, operation.lease_id)
        if len(self._abandoned) < MAX_ABANDONED_LEASES:
            self._abandoned[operation.lease_id] = release
        self._release(release)

    def _release(self, release: Release) -> None:
        def done(outcome: Outcome | ServiceError) -> None:
            is_undecided = isinstance(outcome, ServiceError) and outcome.code not in ("lease_lost", "lock_not_found")
            if not is_undecided and release.lease_id is not None:
                self._abandoned.pop(release.lease_id, None)

        self._submit(release, done)


def _has_lease(waiter: _Waiter) -> bool:
    """Its caller was given a lease."""
    lease = waiter.lease
    return lease.done() and not lease.cancelled() and lease.exception() is None


def _stopping() -> ServiceError:
    return unavailable("the service is shutting down")
