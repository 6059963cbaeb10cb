"""The waiters of each lock, in one queue per lock, in the order of arrival.

Only the first waiter of a queue attempts to acquire the lock, by an operation in the write lane. It attempts when it
becomes the first, when the lock is released (by this server or another), when the current lease expires, and when the
time of any waiter ends (`_look_again`: the refusal must name the lease that holds the lock now). So waiting costs no
work between attempts, a release wakes one waiter, and the commit decides whether the lock is free.

If the caller has disconnected by the time its attempt is committed, the lease is released.
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

IsConnected = Callable[[], bool]
"""Whether the caller is still connected. Called when a lease is granted, because the server may not have read the end
of the connection yet."""

_MICROSECOND: Final = 1e-6
_MIN_PAUSE_SECONDS: Final = 0.001
"""Between two attempts on a lease that has expired by the loop's clock, but not yet by the engine's."""


class _Waiter:
    """One caller. `lease` is completed with its lease or an error."""

    __slots__ = ("deadline", "is_connected", "lease", "may_wait", "operation", "timer")

    def __init__(
        self,
        operation: Acquire,
        lease: asyncio.Future[Lease],
        is_connected: IsConnected,
        *,
        may_wait: bool,
        deadline: float,
    ) -> None:
        self.operation = operation
        self.lease = lease
        self.is_connected = is_connected
        self.may_wait = may_wait
        """Whether it stays in the queue if its attempt fails. False after its deadline."""
        self.deadline = deadline
        """By the loop's clock."""
        self.timer: asyncio.TimerHandle | None = None
        """Started once it has to wait. Most callers get the lock at once, and a timer costs more than that."""


class _Queue:
    """The waiters of one lock. It exists while there are any, or while an attempt is in the lane."""

    __slots__ = ("attempt", "held", "is_woken", "lock", "timer", "waiters")

    def __init__(self, lock: str) -> None:
        self.lock = lock
        self.waiters: deque[_Waiter] = deque()
        self.attempt: _Waiter | None = None
        """The waiter whose attempt is in the lane. It may no longer be in the queue."""
        self.is_woken = False
        """The lock may have been released since that attempt was decided."""
        self.held: Held | None = None
        """The lease that made the last attempt fail."""
        self.timer: asyncio.TimerHandle | None = None


class LockQueues:
    """All queues of a store. `submit` is its write lane."""

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._queues: dict[str, _Queue] = {}
        self._abandoned: dict[str, Release] = {}
        """Leases whose caller has disconnected, by lease_id. They are released as soon as the engine commits it. At
        most MAX_ABANDONED_LEASES."""
        self._stopped = False
        self._must_wake_all = False
        """An attempt could not be submitted; `catch_up` repeats it."""

    def __len__(self) -> int:
        """The number of all waiters."""
        return sum(len(queue.waiters) for queue in self._queues.values())

    def __bool__(self) -> bool:
        """Whether there is a queue. It may have no waiter, only an attempt in the lane."""
        return bool(self._queues)

    def waiting_for(self, lock: str) -> int:
        queue = self._queues.get(lock)
        return 0 if queue is None else len(queue.waiters)

    async def acquire(self, operation: Acquire, wait_seconds: float, is_connected: IsConnected = lambda: True) -> Lease:
        """Wait until the lock is free and all earlier waiters have had their turn; return the lease.

        Raises `lock_held` after `wait_seconds`, `too_many_requests` if the queue is full, and the errors of the lane.
        A cancelled caller is removed from the queue. Raises CancelledError if the caller is no longer connected when
        the lease is granted.
        """
        if self._stopped:
            raise _stopping()
        loop = asyncio.get_running_loop()
        queue = self._queues.setdefault(operation.lock, _Queue(operation.lock))
        if len(queue.waiters) >= MAX_WAITERS:
            raise ServiceError(
                "too_many_requests",
                "too many requests wait for this lock",
                details={"limit": MAX_WAITERS},
                headers={"Retry-After": "1"},
            )
        deadline = loop.time() + wait_seconds
        waiter = _Waiter(operation, loop.create_future(), is_connected, may_wait=wait_seconds > 0, deadline=deadline)
        try:
            queue.waiters.append(waiter)
            if queue.waiters[0] is waiter:
                self._try(queue)
            elif waiter.may_wait:
                self._start_timer(queue, waiter)
            else:
                self._try_if_idle(queue)
            return await waiter.lease
        except ServiceError:
            raise
        except BaseException:
            self._cancel(queue, waiter)
            raise
        finally:
            if waiter.timer is not None:
                waiter.timer.cancel()

    def wake(self, locks: Sequence[str] | None) -> None:
        """These locks were released; None: any lock may have been. Never raises, because the commit is already done."""
        try:
            for lock in list(self._queues) if locks is None else locks:
                queue = self._queues.get(lock)
                if queue is not None:
                    self._try(queue)
        except Exception as failure:  # noqa: BLE001 - `catch_up` wakes them
            self._must_wake_all = True
            report("waiters for a lock could not be woken", failure)

    def stop(self) -> None:
        """Refuse all waiters, except for those whose attempt is in the lane: they get the outcome of the attempt."""
        self._stopped = True
        for queue in list(self._queues.values()):
            for waiter in list(queue.waiters):
                waiter.may_wait = False
                if waiter is not queue.attempt:
                    self._finish(queue, waiter, _stopping())

    def catch_up(self) -> None:
        """Repeat what failed before: release abandoned leases, wake waiters. Called every second."""
        if self._must_wake_all:
            self._must_wake_all = False
            self.wake(None)
        for release in list(self._abandoned.values()):
            self._release(release)

    # Attempts -------------------------------------------------------------------------------------------------

    def _try(self, queue: _Queue) -> None:
        """Submit an attempt of the first waiter. If one is in the lane already, it is repeated in case it fails."""
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
        """If this raises, it is called again with an error. So each step must be safe to repeat."""
        queue.attempt = None
        if isinstance(outcome, Leased):
            # For the other waiters the lock is held from now on.
            queue.held = Held(outcome.lease, outcome.now)
            if not first.is_connected():
                first.lease.cancel()
            self._finish(queue, first, outcome.lease)
            if first.lease.cancelled():
                self._abandon(first.operation)
        elif isinstance(outcome, Held):
            queue.held = outcome
            self._start_timer(queue, first)
        else:
            assert isinstance(outcome, ServiceError)
            if outcome.is_outcome_unknown and not _has_lease(first):
                self._abandon(first.operation)
            self._finish(queue, first, outcome)
            queue.held, queue.is_woken = None, True  # the state of the lock is unknown, so the next waiter attempts
        if queue.held is not None:
            for waiter in [each for each in queue.waiters if not each.may_wait]:
                self._finish(queue, waiter, _stopping() if self._stopped else lock_held(queue.held))
        if not queue.waiters:
            self._remove_queue(queue)
        elif queue.is_woken:
            self._try(queue)
        else:
            self._try_at_expiry(queue)

    def _try_at_expiry(self, queue: _Queue) -> None:
        assert queue.held is not None
        remaining = (queue.held.lease.expires_at - queue.held.now) * _MICROSECOND
        loop = asyncio.get_running_loop()
        queue.timer = loop.call_later(max(remaining, _MIN_PAUSE_SECONDS), self._try, queue)

    # The end of a wait ----------------------------------------------------------------------------------------

    def _start_timer(self, queue: _Queue, waiter: _Waiter) -> None:
        """Start the timer of a waiter that has to wait, unless its deadline passed during its first attempt."""
        if waiter.timer is not None or waiter.lease.done() or not waiter.may_wait:
            return
        loop = asyncio.get_running_loop()
        waiter.may_wait = loop.time() < waiter.deadline
        if waiter.may_wait:
            waiter.timer = loop.call_at(waiter.deadline, self._reach_deadline, queue, waiter)

    def _reach_deadline(self, queue: _Queue, waiter: _Waiter) -> None:
        waiter.may_wait = False
        if not waiter.lease.done():
            self._try_if_idle(queue)

    def _try_if_idle(self, queue: _Queue) -> None:
        """Submit an attempt unless one is in the lane. Its outcome ends the waits that are past their deadline.

        They get the state of the lease from that attempt, because the lease may have been renewed since the last one.
        """
        if queue.attempt is None:
            self._try(queue)

    def _cancel(self, queue: _Queue, waiter: _Waiter) -> None:
        """The caller was cancelled. It may have got the lease at the same time."""
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
            self._remove_queue(queue)

    def _remove_queue(self, queue: _Queue) -> None:
        """For a queue without waiters and without an attempt in the lane."""
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        if self._queues.get(queue.lock) is queue:
            del self._queues[queue.lock]

    # Abandoned leases -----------------------------------------------------------------------------------------

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
    """Whether its caller got a lease."""
    lease = waiter.lease
    return lease.done() and not lease.cancelled() and lease.exception() is None


def _stopping() -> ServiceError:
    return unavailable("the service is shutting down")
