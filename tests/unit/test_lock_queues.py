"""Queues of waiters for locks, with a lane that answers when the test tells it to."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from acquiring import acquired
from msgspec.structs import replace

from leasehold.errors import ServiceError, outcome_unknown, unavailable
from leasehold.limits import MAX_WAITERS
from leasehold.model import Acquire, Held, Keyed, Lease, Leased, Operation, Outcome, Release, Released, Replayed
from leasehold.store import abandoned_leases
from leasehold.store.lock_queues import LockQueues

SECOND = 1_000_000
NOW = 1_000 * SECOND
LONG = 60.0
"""Longer than any test takes."""
HANG_SECONDS = 60.0

Done = Callable[[Outcome | ServiceError], None]


def acquire(lease_id: str, *, lock: str = "l") -> Acquire:
    return Acquire(lock, lease_id, 30 * SECOND)


def lease(lease_id: str, *, lock: str = "l", expires_at: int = NOW + 3600 * SECOND) -> Lease:
    return Lease(lock, lease_id, 1, 1, NOW, expires_at, 3600 * SECOND, "", b"null")


HELD = Held(lease("other"), NOW)
"""A lease of another holder, for an hour."""


class Lane:
    """Replaces the store. `asked`: operations that wait in it."""

    def __init__(self) -> None:
        self.asked: list[tuple[Operation, Done]] = []
        self.done_before: dict[str, Replayed | ServiceError] = {}
        """The outcomes that a waiter with an idempotency key finds, by the name of its receipt."""
        self.queues = LockQueues(lambda operation, done: self.asked.append((operation, done)), self._recall)

    def _recall(self, keyed: Keyed, done: Callable[[Replayed | ServiceError | None], None]) -> None:
        done(self.done_before.get(keyed.receipt))

    @property
    def attempts(self) -> list[str]:
        """The lease ids of the acquisitions in the lane."""
        asked = (operation.operation if isinstance(operation, Keyed) else operation for operation, _ in self.asked)
        return [operation.lease_id for operation in asked if isinstance(operation, Acquire)]

    @property
    def releases(self) -> list[str | None]:
        return [operation.lease_id for operation, _ in self.asked if isinstance(operation, Release)]

    def answer(self, outcome: Outcome | ServiceError) -> None:
        """Answer the operation that came first."""
        self.asked.pop(0)[1](outcome)

    def grant(self) -> None:
        operation = self.asked[0][0]
        if isinstance(operation, Keyed):
            operation = operation.operation
        assert isinstance(operation, Acquire)
        self.answer(Leased(lease(operation.lease_id, lock=operation.lock), NOW))

    def come(
        self,
        lease_id: str,
        *,
        wait: float = LONG,
        lock: str = "l",
        is_connected: Callable[[], bool] = lambda: True,
        receipt: str = "",
    ) -> asyncio.Task[Lease]:
        """`receipt`: the name of its receipt; empty: it has no idempotency key."""
        asked = acquire(lease_id, lock=lock)
        operation = Keyed(asked, receipt, b"", SECOND) if receipt else asked
        acquiring = acquired(self.queues, operation, wait, is_connected)
        return asyncio.get_running_loop().create_task(acquiring)


async def settled() -> None:
    """Run every task until it waits for something."""
    for _ in range(5):
        await asyncio.sleep(0)


async def come(lane: Lane, *names: str) -> list[asyncio.Task[Lease]]:
    """Start these waiters. The attempt of the first one is then in the lane."""
    tasks = [lane.come(name) for name in names]
    await settled()
    return tasks


async def leave(task: asyncio.Task[Lease]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def got(task: asyncio.Task[Lease]) -> str:
    return (await task).lease_id


async def refused(task: asyncio.Task[Lease]) -> str:
    with pytest.raises(ServiceError) as caught:
        await task
    return caught.value.code


def scenario(test: Callable[[Lane], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test on an event loop of its own, and check that no task or queue is left."""

    def run() -> None:
        async def on_a_lane() -> None:
            lane = Lane()
            async with asyncio.timeout(HANG_SECONDS):
                await test(lane)
            assert (len(lane.queues), lane.queues._queues) == (0, {})

        asyncio.run(on_a_lane())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


# The order ----------------------------------------------------------------------------------------------------


@scenario
async def test_a_free_lock_is_acquired_by_one_attempt(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.grant()
    assert (await got(first), lane.asked) == ("1", [])


@scenario
async def test_waiters_get_the_lock_in_order_of_arrival(lane: Lane) -> None:
    tasks = await come(lane, "1", "2", "3")
    for name in ("1", "2", "3"):
        assert lane.attempts == [name]
        lane.grant()
        assert lane.attempts == []
        lane.queues.wake(["l"])
    assert [await got(task) for task in tasks] == ["1", "2", "3"]


@scenario
async def test_queues_of_different_locks_are_independent(lane: Lane) -> None:
    [first] = await come(lane, "1")
    other = lane.come("2", lock="m")
    await settled()
    assert lane.attempts == ["1", "2"]
    lane.answer(HELD)
    lane.grant()
    assert await got(other) == "2"
    lane.queues.wake(["m"])
    assert lane.attempts == []
    lane.queues.wake(["l"])
    lane.grant()
    assert await got(first) == "1"


@scenario
async def test_a_wake_of_all_locks_makes_the_first_of_each_queue_try(lane: Lane) -> None:
    tasks = [*await come(lane, "1", "2"), lane.come("3", lock="m")]
    await settled()
    lane.answer(HELD)
    lane.answer(HELD)
    lane.queues.wake(None)
    assert lane.attempts == ["1", "3"]
    lane.grant()
    lane.grant()
    lane.queues.wake(None)
    lane.grant()
    assert [await got(task) for task in tasks] == ["1", "2", "3"]


# Waking -------------------------------------------------------------------------------------------------------


@scenario
async def test_a_woken_waiter_that_finds_the_lock_held_keeps_waiting(lane: Lane) -> None:
    first, second = await come(lane, "1", "2")
    for _ in range(3):
        lane.answer(HELD)
        assert lane.attempts == []
        lane.queues.wake(["l"])
        assert lane.attempts == ["1"]
    lane.grant()
    lane.queues.wake(["l"])
    lane.grant()
    assert (await got(first), await got(second)) == ("1", "2")


@scenario
async def test_a_wake_during_an_attempt_is_not_lost(lane: Lane) -> None:
    """The lock may have been released after the attempt was decided."""
    [first] = await come(lane, "1")
    lane.queues.wake(["l"])
    lane.queues.wake(["l"])
    assert lane.attempts == ["1"]
    lane.answer(HELD)
    assert lane.attempts == ["1"]
    lane.answer(HELD)
    assert lane.attempts == []
    lane.queues.wake(["l"])
    lane.grant()
    assert await got(first) == "1"


@scenario
async def test_the_first_waiter_tries_when_the_lease_expires(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.answer(Held(lease("other", expires_at=NOW + 1_000), NOW))
    assert lane.attempts == []
    while not lane.attempts:  # noqa: ASYNC110 - waits for a timer
        await asyncio.sleep(0)
    lane.grant()
    assert await got(first) == "1"


@scenario
async def test_a_wake_of_a_lock_without_waiters_is_ignored(lane: Lane) -> None:
    lane.queues.wake(["l"])
    lane.queues.wake(None)
    assert lane.asked == []


# Leaving ------------------------------------------------------------------------------------------------------


@scenario
async def test_a_first_waiter_that_left_does_not_block_the_others(lane: Lane) -> None:
    first, second = await come(lane, "1", "2")
    lane.answer(HELD)
    await leave(first)
    assert lane.queues.waiting_for("l") == 1
    lane.queues.wake(["l"])
    assert lane.attempts == ["2"]
    lane.grant()
    assert await got(second) == "2"


@scenario
async def test_a_lease_for_a_waiter_that_left_during_its_attempt_is_released_for_the_next(lane: Lane) -> None:
    first, second = await come(lane, "1", "2")
    await leave(first)
    lane.grant()
    assert (lane.releases, lane.attempts) == (["1"], [])
    lane.answer(Released("l", 2))
    lane.queues.wake(["l"])
    lane.grant()
    assert await got(second) == "2"
    lane.queues.catch_up()
    assert lane.asked == []


@scenario
async def test_a_lease_for_a_waiter_that_left_at_the_moment_of_success_is_released(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.grant()
    await leave(first)
    assert lane.releases == ["1"]


@scenario
async def test_a_waiter_that_left_during_a_refused_attempt_leaves_nothing_behind(lane: Lane) -> None:
    [first] = await come(lane, "1")
    await leave(first)
    lane.answer(HELD)
    assert lane.asked == []


@scenario
async def test_a_waiter_that_comes_after_the_first_left_gets_the_next_attempt(lane: Lane) -> None:
    [first] = await come(lane, "1")
    await leave(first)
    [second] = await come(lane, "2")
    assert lane.attempts == ["1"]
    lane.answer(HELD)
    assert lane.attempts == ["2"]
    lane.grant()
    assert await got(second) == "2"


@scenario
async def test_a_waiter_that_leaves_the_middle_of_the_queue_is_skipped(lane: Lane) -> None:
    first, second, third = await come(lane, "1", "2", "3")
    await leave(second)
    lane.grant()
    lane.queues.wake(["l"])
    lane.grant()
    assert (await got(first), await got(third)) == ("1", "3")


@scenario
async def test_a_caller_that_comes_again_as_soon_as_it_is_refused_gets_an_attempt_of_its_own(lane: Lane) -> None:
    told: list[Outcome | ServiceError] = []

    def come_again(outcome: Outcome | ServiceError) -> None:
        told.append(outcome)
        lane.queues.acquire(acquire("again"), 0, told.append)

    lane.queues.acquire(acquire("1"), 0, come_again)
    lane.answer(HELD)
    await settled()
    assert (len(told), lane.attempts) == (1, ["again"])
    lane.grant()
    await settled()
    assert [type(each) for each in told] == [ServiceError, Leased]
    assert lane.asked == []


@scenario
async def test_a_lease_is_released_once_if_its_waiter_is_cancelled_twice(lane: Lane) -> None:
    told: list[Outcome | ServiceError] = []
    waiter = lane.queues.acquire(acquire("1"), 0, told.append)
    lane.grant()
    waiter.cancel()
    waiter.cancel()
    await settled()
    assert (told, lane.releases) == ([], ["1"])


@scenario
async def test_a_waiter_that_is_cancelled_is_told_nothing(lane: Lane) -> None:
    told: list[Outcome | ServiceError] = []
    first = lane.queues.acquire(acquire("1"), LONG, told.append)
    second = lane.queues.acquire(acquire("2"), LONG, told.append)
    second.cancel()
    first.cancel()
    second.cancel()
    lane.answer(HELD)
    await settled()
    assert (told, lane.asked) == ([], [])


# Waiting times ------------------------------------------------------------------------------------------------


@scenario
async def test_an_acquisition_without_waiting_makes_one_attempt(lane: Lane) -> None:
    first = lane.come("1", wait=0)
    await settled()
    lane.answer(HELD)
    assert (await refused(first), lane.attempts) == ("lock_held", [])


@scenario
async def test_an_acquisition_without_waiting_in_a_queue_is_refused_with_the_next_attempt(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.answer(HELD)
    second, third = lane.come("2", wait=0), lane.come("3", wait=0)
    await settled()
    assert lane.attempts == ["1"]
    lane.answer(HELD)
    assert (await refused(second), await refused(third), lane.attempts) == ("lock_held", "lock_held", [])
    await leave(first)


@scenario
async def test_a_waiter_whose_time_ends_during_its_attempt_can_still_get_the_lock(lane: Lane) -> None:
    first = lane.come("1", wait=0.001)
    await asyncio.sleep(0.005)
    assert not first.done()
    lane.grant()
    assert await got(first) == "1"


@scenario
async def test_a_waiter_whose_time_ends_during_its_refused_attempt_gets_that_refusal(lane: Lane) -> None:
    first = lane.come("1", wait=1e-9)
    await settled()
    lane.answer(HELD)
    assert (await refused(first), lane.asked) == ("lock_held", [])


@scenario
async def test_a_waiter_whose_time_ends_is_refused_when_the_first_attempt_gets_the_lock(lane: Lane) -> None:
    [first] = await come(lane, "1")
    second, third = lane.come("2", wait=0), lane.come("3")
    await settled()
    lane.grant()
    assert (await got(first), await refused(second), lane.queues.waiting_for("l")) == ("1", "lock_held", 1)
    await leave(third)


@scenario
async def test_a_waiter_whose_time_ends_is_told_the_current_holder(lane: Lane) -> None:
    first = lane.come("1", wait=0.05)
    await settled()
    lane.answer(HELD)
    while not lane.attempts:  # noqa: ASYNC110 - waits for a timer
        await asyncio.sleep(0)
    lane.answer(Held(lease("other", expires_at=NOW + 7 * SECOND), NOW + 2 * SECOND))
    with pytest.raises(ServiceError) as caught:
        await first
    assert (caught.value.code, caught.value.headers) == ("lock_held", {"Retry-After": "5"})


# Failures -----------------------------------------------------------------------------------------------------


@scenario
async def test_an_error_goes_to_the_waiter_of_the_attempt_and_the_next_one_tries(lane: Lane) -> None:
    first, second = await come(lane, "1", "2")
    lane.answer(ServiceError("storage_full", "the disk is full"))
    assert (lane.attempts, lane.releases) == (["2"], [])
    lane.grant()
    assert (await refused(first), await got(second)) == ("storage_full", "2")


@scenario
async def test_an_acquisition_with_an_unknown_outcome_is_released(lane: Lane) -> None:
    first, second = await come(lane, "1", "2")
    lane.answer(outcome_unknown())
    assert [type(operation) for operation, _ in lane.asked] == [Release, Acquire]
    assert await refused(first) == "unavailable"
    lane.answer(Released("l", 2))
    lane.grant()
    assert await got(second) == "2"


@pytest.mark.parametrize("decided", ["released", "lease_lost", "lock_not_found"])
def test_the_release_of_an_abandoned_lease_is_retried_until_the_engine_accepts_it(decided: str) -> None:
    async def run() -> None:
        lane = Lane()
        [first] = await come(lane, "1")
        lane.answer(outcome_unknown())
        assert await refused(first) == "unavailable"
        for error in (unavailable("away"), ServiceError("storage_full", "full"), ServiceError("internal", "failed")):
            assert lane.releases == ["1"]
            lane.answer(error)
            assert lane.releases == []
            lane.queues.catch_up()
        outcome = Released("l", 2) if decided == "released" else ServiceError(decided, "x")  # type: ignore[arg-type]
        lane.answer(outcome)
        lane.queues.catch_up()
        assert lane.asked == []

    asyncio.run(run())


def test_the_number_of_remembered_abandoned_leases_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abandoned_leases, "MAX_ABANDONED_LEASES", 3)

    async def run() -> None:
        lane = Lane()
        for number in range(5):
            asking = lane.come(f"{number}", lock=f"l{number}")
            await settled()
            lane.answer(outcome_unknown())
            assert await refused(asking) == "unavailable"
            lane.answer(outcome_unknown())
        lane.queues.catch_up()
        assert lane.releases == ["0", "1", "2"], "the others end with their ttl"

    asyncio.run(run())


@scenario
async def test_an_acquisition_that_was_certainly_not_stored_is_not_released(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.answer(unavailable("the database cannot be reached now"))
    assert await refused(first) == "unavailable"
    assert lane.asked == []


@scenario
async def test_an_attempt_that_cannot_be_submitted_is_made_later(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.answer(HELD)
    real = lane.queues._submit

    def fails(_operation: Operation, _done: Done) -> None:
        raise MemoryError

    lane.queues._submit = fails
    lane.queues.wake(["l"])
    lane.queues._submit = real
    lane.queues.catch_up()
    lane.grant()
    assert await got(first) == "1"


# Limits and shutdown ------------------------------------------------------------------------------------------


@scenario
async def test_waiters_over_the_limit_are_refused(lane: Lane) -> None:
    tasks = [lane.come(f"{number}") for number in range(MAX_WAITERS)]
    await settled()
    assert (len(lane.queues), lane.queues.waiting_for("l"), MAX_WAITERS) == (1_000, 1_000, 1_000)
    for wait in (LONG, 0):
        with pytest.raises(ServiceError) as caught:
            await lane.come("too many", wait=wait)
        assert (caught.value.code, caught.value.status) == ("too_many_requests", 429)
        assert (caught.value.details, caught.value.headers) == ({"limit": 1_000}, {"Retry-After": "1"})
    other = lane.come("other", lock="m")
    await leave(tasks.pop())
    tasks.append(lane.come("has a place"))
    await settled()
    assert lane.queues.waiting_for("l") == MAX_WAITERS
    for task in [*tasks, other]:
        task.cancel()
    await asyncio.gather(*tasks, other, return_exceptions=True)
    lane.answer(HELD)
    lane.answer(HELD)


@scenario
async def test_at_shutdown_all_waiters_are_refused_except_the_one_whose_attempt_is_in_progress(lane: Lane) -> None:
    first, second, third = await come(lane, "1", "2", "3")
    lane.queues.stop()
    assert [await refused(task) for task in (second, third)] == ["unavailable"] * 2
    assert not first.done()
    lane.grant()
    assert await got(first) == "1"
    assert await refused(lane.come("4")) == "unavailable"


@scenario
async def test_an_attempt_that_is_refused_during_shutdown_is_not_repeated(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.queues.stop()
    lane.queues.wake(["l"])
    lane.answer(HELD)
    assert (await refused(first), lane.attempts) == ("unavailable", [])


@scenario
async def test_a_lease_for_a_client_whose_disconnect_was_not_seen_yet_is_released(lane: Lane) -> None:
    gone = lane.come("gone", is_connected=lambda: False)
    [staying] = await come(lane, "staying")
    lane.grant()
    await settled()
    assert (gone.cancelled(), lane.releases) == (True, ["gone"])
    lane.answer(Released("l", 2))
    lane.queues.wake(["l"])
    lane.grant()
    assert await got(staying) == "staying"


# Idempotency keys ---------------------------------------------------------------------------------------------

DONE = Replayed(Leased(lease("earlier"), NOW))
REUSED = ServiceError("idempotency_key_reused", "another request")


@scenario
async def test_an_acquisition_that_was_done_gets_its_lease_and_the_next_waiter_tries(lane: Lane) -> None:
    first, second = lane.come("1", receipt="r"), lane.come("2")
    await settled()
    lane.answer(DONE)
    assert await got(first) == "earlier"
    assert lane.attempts == ["2"]
    lane.grant()
    assert await got(second) == "2"


@scenario
async def test_a_key_of_another_request_is_refused_and_the_next_waiter_tries(lane: Lane) -> None:
    first, second = lane.come("1", receipt="r"), lane.come("2")
    await settled()
    lane.answer(REUSED)
    assert await refused(first) == "idempotency_key_reused"
    lane.grant()
    assert await got(second) == "2"


@scenario
async def test_a_repetition_that_arrives_behind_others_does_not_wait_for_them(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.answer(HELD)
    lane.done_before["r"] = DONE
    again = lane.come("2", receipt="r")
    assert await got(again) == "earlier"
    assert lane.attempts == []
    await leave(first)


@scenario
async def test_a_key_of_another_request_is_refused_behind_others(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.answer(HELD)
    lane.done_before["r"] = REUSED
    assert await refused(lane.come("2", receipt="r")) == "idempotency_key_reused"
    await leave(first)


@pytest.mark.parametrize("place", ["first", "behind others"])
def test_a_repetition_that_waits_gets_the_lease_when_the_first_request_has_acquired_it(place: str) -> None:
    @scenario
    async def run(lane: Lane) -> None:
        others = [] if place == "first" else await come(lane, "1")
        again = lane.come("2", receipt="r")
        await settled()
        lane.answer(HELD)
        lane.queues.recall([lease("earlier")])
        await settled()
        assert not again.done()
        lane.done_before["r"] = DONE
        lane.queues.recall([lease("earlier", lock="another")])
        await settled()
        assert not again.done()
        lane.queues.recall([lease("earlier")])
        assert await got(again) == "earlier"
        for other in others:
            await leave(other)

    run()


@scenario
async def test_only_waiters_of_the_same_holder_look_for_the_outcome(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.answer(HELD)
    again = lane.come("2", receipt="r")
    await settled()
    lane.done_before["r"] = DONE
    lane.queues.recall([replace(lease("earlier"), holder="another")])
    await settled()
    assert not again.done()
    await leave(again)
    await leave(first)


@scenario
async def test_a_repetition_that_does_not_wait_is_refused_with_the_lease_of_now(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.answer(HELD)
    again = lane.come("2", wait=0, receipt="r")
    await settled()
    assert lane.attempts == ["1"]
    lane.answer(HELD)
    assert await refused(again) == "lock_held"
    await leave(first)


@scenario
async def test_a_repetition_gets_the_lease_of_the_attempt_whose_client_has_left_meanwhile(lane: Lane) -> None:
    [first] = [lane.come("1", receipt="r")]
    await settled()
    await leave(first)
    again = lane.come("2", wait=0, receipt="r")
    await settled()
    lane.done_before["r"] = Replayed(Leased(lease("1"), NOW))
    lane.grant()
    assert await got(again) == "1"
    assert lane.asked == []


@scenario
async def test_the_time_of_a_repetition_ends_behind_others(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.answer(HELD)
    again = lane.come("2", wait=0.01, receipt="r")
    while not lane.attempts:  # noqa: ASYNC110 - only a timer of the queue ends it
        await asyncio.sleep(0.001)
    lane.answer(HELD)
    assert await refused(again) == "lock_held"
    await leave(first)


@pytest.mark.parametrize("receipt", ["", "r"])
def test_the_lease_of_a_client_that_has_left_is_kept_only_with_a_key(receipt: str) -> None:
    @scenario
    async def run(lane: Lane) -> None:
        left = lane.come("1", is_connected=lambda: False, receipt=receipt)
        await settled()
        lane.grant()
        with suppress(asyncio.CancelledError):
            await left
        assert lane.releases == ([] if receipt else ["1"])
        lane.asked.clear()

    run()


@pytest.mark.parametrize("receipt", ["", "r"])
def test_an_acquisition_of_unknown_outcome_is_released_only_without_a_key(receipt: str) -> None:
    @scenario
    async def run(lane: Lane) -> None:
        asked = lane.come("1", receipt=receipt)
        await settled()
        lane.answer(outcome_unknown())
        assert await refused(asked) == "unavailable"
        assert lane.releases == ([] if receipt else ["1"])
        lane.asked.clear()

    run()


@scenario
async def test_a_failure_to_look_for_outcomes_is_survived(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.answer(HELD)
    again = lane.come("2", receipt="r")
    await settled()

    def fail(_keyed: Keyed, _done: object) -> None:
        raise MemoryError

    lane.queues._recall = fail
    lane.queues.recall([lease("earlier")])
    assert not again.done()
    await leave(again)
    await leave(first)
