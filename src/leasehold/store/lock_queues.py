"""The waiters of each lock, in one queue per lock, in the order of arrival.

Only the first waiter of a queue attempts to acquire the lock, by an operation in the write lane. It attempts when it
becomes the first, when the lock is released (by this server or another), when the current lease expires, and when the
time of any waiter ends (`_look_again`: the refusal must name the lease that holds the lock now). So waiting costs no
work between attempts, a release wakes one waiter, and the commit decides whether the lock is free.

If the caller has disconnected by the time its attempt is committed, the lease is released. An acquisition with an
idempotency key (`Keyed`) is not: its caller may repeat the request, to get the same lease. The repetition may arrive
while the first request still waits. So a waiter with a key that is not the first looks for the outcome when it arrives,
and whenever the lock was acquired.

Callers are told by callbacks, because most of them get the lock at once: a task and a future for each took 20,000 of
289,000 instructions of an acquisition and a release over HTTP.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from leasehold.completions import report
from leasehold.errors import ServiceError, shutting_down
from leasehold.limits import MAX_WAITERS
from leasehold.model import Acquire, Held, Keyed, Lease, Leased, Outcome, Replayed
from leasehold.rules import lock_held
from leasehold.store.abandoned_leases import AbandonedLeases, Submit
from leasehold.store.batch import Done

Recall = Callable[[Keyed, Callable[[Replayed | ServiceError | None], None]], None]
"""`Store.recall`."""

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
        "acquire",
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
        operation: Acquire | Keyed,
        done: Done,
        is_connected: IsConnected,
        *,
        may_wait: bool,
        deadline: float,
    ) -> None:
        self._queues = queues
        self._queue = queue
        self.operation = operation
        self.acquire = _acquire_in(operation)
        self.done = done
        """Gets `Leased`, `Replayed` or an error, once. It is called by the event loop, so it may acquire again."""
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
    """All queues of a store. `submit` is its write lane, `recall` finds the outcome of an operation with a key."""

    def __init__(self, submit: Submit, recall: Recall) -> None:
        self._submit = submit
        self._recall = recall
        self._queues: dict[str, _Queue] = {}
        self._abandoned = AbandonedLeases(submit)
        self._stopped: Callable[[], ServiceError] | None = None
        """Makes the error with which all waiters are refused."""
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
        self, operation: Acquire | Keyed, wait_seconds: float, done: Done, is_connected: IsConnected = lambda: True
    ) -> Waiter:
        """Wait until the lock is free and all earlier waiters have had their turn; then `done` gets `Leased`.

        `done` gets `Replayed` if the lock was acquired before with the same idempotency key, `idempotency_key_reused`
        if something else was done with this key, `lock_held` after `wait_seconds`, or the errors of the lane. It is
        called after this has returned. The caller must cancel the waiter if it leaves before that. Raises
        `too_many_requests` if the queue is full, and the reason of `stop` after it.
        """
        if self._stopped is not None:
            raise self._stopped()
        lock = _acquire_in(operation).lock
        queue = self._queues.get(lock)
        if queue is None:
            queue = self._queues[lock] = _Queue(lock)
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
            elif isinstance(operation, Keyed):
                self._start_timer(queue, waiter)
                self._look_for_outcome(queue, waiter, operation)
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

    def recall(self, leases: Sequence[Lease]) -> None:
        """These were acquired, perhaps by the same request of a waiter with an idempotency key. Never raises."""
        try:
            for lease in leases:
                queue = self._queues.get(lease.lock)
                for waiter in () if queue is None else list(queue.waiters):
                    if isinstance(waiter.operation, Keyed) and waiter.acquire.holder == lease.holder:
                        assert queue is not None
                        self._look_for_outcome(queue, waiter, waiter.operation)
        except Exception as failure:  # noqa: BLE001 - they look again when their time ends
            report("waiters for a lock could not look for an earlier outcome", failure)

    def stop(self, reason: Callable[[], ServiceError] = shutting_down) -> None:
        """Refuse all waiters, except for those whose attempt is in the lane: they get the outcome of the attempt.

        `reason` makes the error.
        """
        self._stopped = reason
        for queue in list(self._queues.values()):
            for waiter in list(queue.waiters):
                waiter.may_wait = False
                if waiter is not queue.attempt:
                    self._finish(queue, waiter, reason())

    def catch_up(self) -> None:
        """Repeat what failed before: release abandoned leases, wake waiters. Called every second."""
        if self._must_wake_all:
            self._must_wake_all = False
            self.wake(None)
        self._abandoned.release_all()

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
            assert isinstance(outcome, ServiceError | Replayed)
            is_unknown = isinstance(outcome, ServiceError) and outcome.is_outcome_unknown
            if is_unknown and not (first.has_lease and first.has_ended):
                self._abandon(first.operation)
            self._finish(queue, first, outcome)
            queue.held, queue.is_woken = None, True  # the state of the lock is unknown, so the next waiter attempts
        if queue.held is not None and queue.waiters:
            self._refuse_those_that_do_not_wait(queue, queue.held)
        if not queue.waiters:
            self._remove_queue(queue)
        elif queue.is_woken:
            self._try(queue)
        else:
            self._try_at_expiry(queue)

    def _refuse_those_that_do_not_wait(self, queue: _Queue, held: Held) -> None:
        for waiter in [each for each in queue.waiters if not each.may_wait]:
            refusal = lock_held(held) if self._stopped is None else self._stopped()
            if isinstance(waiter.operation, Keyed):
                # The attempt may have been that of the same request, whose client has left.
                self._look_for_outcome(queue, waiter, waiter.operation, otherwise=refusal)
            else:
                self._finish(queue, waiter, refusal)

    def _try_at_expiry(self, queue: _Queue) -> None:
        assert queue.held is not None
        remaining = (queue.held.lease.expires_at - queue.held.now) * _MICROSECOND
        loop = asyncio.get_running_loop()
        queue.timer = loop.call_later(max(remaining, _MIN_PAUSE_SECONDS), self._try, queue)

    def _look_for_outcome(
        self, queue: _Queue, waiter: Waiter, keyed: Keyed, *, otherwise: ServiceError | None = None
    ) -> None:
        """End the wait if the operation was done before. If it was not: end it with `otherwise`, if that is given."""

        def done(outcome: Replayed | ServiceError | None) -> None:
            if isinstance(outcome, Replayed) or (outcome is not None and outcome.code == "idempotency_key_reused"):
                self._finish(queue, waiter, outcome)
            elif queue.attempt is waiter:
                pass  # it may get the lock yet
            elif otherwise is not None:
                self._finish(queue, waiter, otherwise)
            elif not waiter.may_wait and not waiter.has_ended:
                self._try_if_idle(queue)

        self._recall(keyed, done)

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

    def _abandon(self, operation: Acquire | Keyed) -> None:
        if not isinstance(operation, Keyed):  # with a key, the caller gets the lease when it repeats the request
            self._abandoned.add(operation.lock, operation.lease_id)


def _acquire_in(operation: Acquire | Keyed) -> Acquire:
    if type(operation) is Acquire:  # `isinstance` of a struct takes 800 instructions
        return operation
    assert isinstance(operation, Keyed)
    assert isinstance(operation.operation, Acquire)
    return operation.operation
