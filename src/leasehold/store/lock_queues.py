"""The waiters of each lock, in one queue per lock, in the order of arrival.

Only the first waiter of a queue attempts to acquire the lock, by an operation in the write lane. It attempts when it
becomes the first, when the lock is released (by this server or another), when the current lease expires, and when the
time of any waiter ends (`_look_again`: the refusal must name the lease that holds the lock now). So waiting costs no
work between attempts, a release wakes one waiter, and the commit decides whether the lock is free.

If the caller has disconnected by the time its attempt is committed, the lease is released.

Callers are told by callbacks, because most of them get the lock at once: a task and a future for each took 20,000 of
289,000 instructions of an acquisition and a release over HTTP.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from leasehold.completions import report
from leasehold.errors import ServiceError, unavailable
from leasehold.limits import MAX_ABANDONED_LEASES, MAX_WAITERS
from leasehold.model import Acquire, Held, Leased, Operation, Outcome, Release
from leasehold.rules import lock_held
from leasehold.store.batch import Done

Submit = Callable[[Operation, Done], None]

IsConnected = Callable[[], bool]
"""Whether the caller is still connected. Called when a lease is granted, because the server may not have read the end
of the connection yet. If it returns False, the caller gets no outcome."""

_MICROSECOND: Final = 1e-6
_MIN_PAUSE_SECONDS: Final = 0.001
"""Between two attempts on a lease that has expired by the loop's clock, but not yet by the engine's."""


class Waiter:
    """One caller, from its arrival to its outcome."""

    __slots__ = (
        "_queue",
        "_queues",
        "deadline",
        "done",
        "has_ended",
        "has_lease",
        "is_connected",
        "may_wait",
        "operation",
        "timer",
        "told",
    )

    def __init__(
        self,
        queues: "LockQueues",
        queue: "_Queue",
        operation: Acquire,
        done: Done,
        is_connected: IsConnected,
        *,
        may_wait: bool,
        deadline: float,
    ) -> None:
        self._queues = queues
        self._queue = queue
        self.operation = operation
        self.done = done
        """Gets `Leased` or an error, once. It is called by the event loop, so it may acquire again."""
        self.is_connected = is_connected
        self.may_wait = may_wait
        """Whether it stays in the queue if its attempt fails. False after its deadline."""
        self.deadline = deadline
        """By the loop's clock."""
        self.timer: asyncio.TimerHandle | None = None
        """Started once it has to wait. Most callers get the lock at once, and a timer costs more than that."""
        self.has_ended = False
        """It has its outcome, or its caller has left."""
        self.has_lease = False
        self.told: asyncio.Handle | None = None
        """The call of `done`, once it has an outcome."""

    def cancel(self) -> None:
        """The caller has left, and gets no outcome from now on. If it has got the lease, the lease is released.

        It can be called again.
        """
        self._queues.remove(self._queue, self)


class _Queue:
    """The waiters of one lock. It exists while there are any, or while an attempt is in the lane."""

    __slots__ = ("attempt", "held", "is_woken", "lock", "timer", "waiters")

    def __init__(self, lock: str) -> None:
        self.lock = lock
        self.waiters: deque[Waiter] = deque()
        self.attempt: Waiter | None = None
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

    def acquire(
        self, operation: Acquire, wait_seconds: float, done: Done, is_connected: IsConnected = lambda: True
    ) -> Waiter:
        """Wait until the lock is free and all earlier waiters have had their turn; then `done` gets `Leased`.

        `done` gets `lock_held` after `wait_seconds`, or the errors of the lane. It is called after this has returned.
        The caller must cancel the waiter if it leaves before that. Raises `too_many_requests` if the queue is full, and
        `unavailable` after `stop`.
        """
        if self._stopped:
            raise _stopping()
        queue = self._queues.get(operation.lock)
        if queue is None:
            queue = self._queues[operation.lock] = _Queue(operation.lock)
        elif len(queue.waiters) >= MAX_WAITERS:
            raise ServiceError(
                "too_many_requests",
                "too many requests wait for this lock",
                details={"limit": MAX_WAITERS},
                headers={"Retry-After": "1"},
            )
        deadline = asyncio.get_running_loop().time() + wait_seconds
        waiter = Waiter(self, queue, operation, done, is_connected, may_wait=wait_seconds > 0, deadline=deadline)
        try:
            queue.waiters.append(waiter)
            if queue.waiters[0] is waiter:
                self._try(queue)
            elif waiter.may_wait:
                self._start_timer(queue, waiter)
            else:
                self._try_if_idle(queue)
        except BaseException:
            waiter.cancel()
            raise
        return waiter

    def remove(self, queue: _Queue, waiter: Waiter) -> None:
        """See `Waiter.cancel`."""
        if waiter.told is not None:
            waiter.told.cancel()
        if waiter.has_lease:
            waiter.has_lease = False
            self._abandon(waiter.operation)
        self._end(queue, waiter)

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

    def _end_attempt(self, queue: _Queue, first: Waiter, outcome: Outcome | ServiceError) -> None:
        """If this raises, it is called again with an error. So each step must be safe to repeat."""
        queue.attempt = None
        if isinstance(outcome, Leased):
            # For the other waiters the lock is held from now on.
            queue.held = Held(outcome.lease, outcome.now)
            if first.has_ended or not first.is_connected():
                self._end(queue, first)
                self._abandon(first.operation)
            else:
                first.has_lease = True
                self._finish(queue, first, outcome)
        elif isinstance(outcome, Held):
            queue.held = outcome
            self._start_timer(queue, first)
        else:
            assert isinstance(outcome, ServiceError)
            if outcome.is_outcome_unknown and not (first.has_lease and first.has_ended):
                self._abandon(first.operation)
            self._finish(queue, first, outcome)
            queue.held, queue.is_woken = None, True  # the state of the lock is unknown, so the next waiter attempts
        if queue.held is not None and queue.waiters:
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

    def _start_timer(self, queue: _Queue, waiter: Waiter) -> None:
        """Start the timer of a waiter that has to wait, unless its deadline passed during its first attempt."""
        if waiter.timer is not None or waiter.has_ended or not waiter.may_wait:
            return
        loop = asyncio.get_running_loop()
        waiter.may_wait = loop.time() < waiter.deadline
        if waiter.may_wait:
            waiter.timer = loop.call_at(waiter.deadline, self._reach_deadline, queue, waiter)

    def _reach_deadline(self, queue: _Queue, waiter: Waiter) -> None:
        waiter.may_wait = False
        if not waiter.has_ended:
            self._try_if_idle(queue)

    def _try_if_idle(self, queue: _Queue) -> None:
        """Submit an attempt unless one is in the lane. Its outcome ends the waits that are past their deadline.

        They get the state of the lease from that attempt, because the lease may have been renewed since the last one.
        """
        if queue.attempt is None:
            self._try(queue)

    def _finish(self, queue: _Queue, waiter: Waiter, outcome: Outcome | ServiceError) -> None:
        if not waiter.has_ended:
            waiter.told = asyncio.get_running_loop().call_soon(waiter.done, outcome)
            waiter.has_ended = True
        self._end(queue, waiter)

    def _end(self, queue: _Queue, waiter: Waiter) -> None:
        """Remove a waiter that gets its outcome now, or that has left."""
        waiter.has_ended = True
        if waiter.timer is not None:
            waiter.timer.cancel()
            waiter.timer = None
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


def _stopping() -> ServiceError:
    return unavailable("the service is shutting down")
