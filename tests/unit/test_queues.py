"""Who waits for which lock: the queues alone, with a lane that answers when the test says so."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from leasehold.errors import ServiceError, outcome_unknown, unavailable
from leasehold.limits import MAX_WAITERS
from leasehold.model import Acquire, Held, Lease, Leased, Operation, Outcome, Release, Released
from leasehold.store import lock_queues as queues
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
"""By somebody else, for an hour."""


class Lane:
    """Stands in for the store. `asked` is what waits in it."""

    def __init__(self) -> None:
        self.asked: list[tuple[Operation, Done]] = []
        self.queues = LockQueues(lambda operation, done: self.asked.append((operation, done)))

    @property
    def attempts(self) -> list[str]:
        """The lease ids of the acquisitions in the lane."""
        return [operation.lease_id for operation, _ in self.asked if isinstance(operation, Acquire)]

    @property
    def releases(self) -> list[str | None]:
        return [operation.lease_id for operation, _ in self.asked if isinstance(operation, Release)]

    def answer(self, outcome: Outcome | ServiceError) -> None:
        """To the operation that came first."""
        self.asked.pop(0)[1](outcome)

    def grant(self) -> None:
        operation = self.asked[0][0]
        assert isinstance(operation, Acquire)
        self.answer(Leased(lease(operation.lease_id, lock=operation.lock), NOW))

    def come(
        self, lease_id: str, *, wait: float = LONG, lock: str = "l", is_there: Callable[[], bool] = lambda: True
    ) -> asyncio.Task[Lease]:
        acquiring = self.queues.acquire(acquire(lease_id, lock=lock), wait, is_there)
        return asyncio.get_running_loop().create_task(acquiring)


async def settled() -> None:
    """Let every task run until it waits for something else."""
    for _ in range(5):
        await asyncio.sleep(0)


async def come(lane: Lane, *names: str) -> list[asyncio.Task[Lease]]:
    """All wait; the first one's attempt is in the lane."""
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
    """A test on a loop of its own, which must leave nothing behind."""

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
async def test_a_free_lock_is_had_by_one_attempt(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.grant()
    assert (await got(first), lane.asked) == ("1", [])


@scenario
async def test_locks_go_to_those_who_wait_in_order_of_arrival(lane: Lane) -> None:
    tasks = await come(lane, "1", "2", "3")
    for name in ("1", "2", "3"):
        assert lane.attempts == [name]
        lane.grant()
        assert lane.attempts == []
        lane.queues.wake(["l"])
    assert [await got(task) for task in tasks] == ["1", "2", "3"]


@scenario
async def test_queues_of_other_locks_go_on_by_themselves(lane: Lane) -> None:
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
async def test_a_wake_for_any_lock_lets_the_first_of_each_queue_try(lane: Lane) -> None:
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
async def test_one_who_is_woken_and_finds_the_lock_held_goes_on_waiting(lane: Lane) -> None:
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
async def test_a_wake_in_the_middle_of_an_attempt_is_not_lost(lane: Lane) -> None:
    """The lock may have been set free after the attempt was decided."""
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
async def test_the_first_tries_by_itself_when_the_lease_in_its_way_ends(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.answer(Held(lease("other", expires_at=NOW + 1_000), NOW))
    assert lane.attempts == []
    while not lane.attempts:  # noqa: ASYNC110 - the event is a timer's
        await asyncio.sleep(0)
    lane.grant()
    assert await got(first) == "1"


@scenario
async def test_a_lock_that_nobody_waits_for_may_be_woken(lane: Lane) -> None:
    lane.queues.wake(["l"])
    lane.queues.wake(None)
    assert lane.asked == []


# Leaving ------------------------------------------------------------------------------------------------------


@scenario
async def test_a_first_who_left_does_not_hold_up_the_others(lane: Lane) -> None:
    first, second = await come(lane, "1", "2")
    lane.answer(HELD)
    await leave(first)
    assert lane.queues.waiting_for("l") == 1
    lane.queues.wake(["l"])
    assert lane.attempts == ["2"]
    lane.grant()
    assert await got(second) == "2"


@scenario
async def test_a_lease_for_one_who_left_during_the_attempt_is_released_and_the_next_gets_the_lock(lane: Lane) -> None:
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
async def test_a_lease_for_one_who_left_in_the_moment_of_success_is_released(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.grant()
    await leave(first)
    assert lane.releases == ["1"]


@scenario
async def test_one_who_left_during_an_attempt_that_failed_leaves_nothing_behind(lane: Lane) -> None:
    [first] = await come(lane, "1")
    await leave(first)
    lane.answer(HELD)
    assert lane.asked == []


@scenario
async def test_who_comes_during_the_attempt_of_one_who_left_gets_an_attempt_after_it(lane: Lane) -> None:
    [first] = await come(lane, "1")
    await leave(first)
    [second] = await come(lane, "2")
    assert lane.attempts == ["1"]
    lane.answer(HELD)
    assert lane.attempts == ["2"]
    lane.grant()
    assert await got(second) == "2"


@scenario
async def test_one_from_the_middle_who_leaves_is_passed_over(lane: Lane) -> None:
    first, second, third = await come(lane, "1", "2", "3")
    await leave(second)
    lane.grant()
    lane.queues.wake(["l"])
    lane.grant()
    assert (await got(first), await got(third)) == ("1", "3")


# Time to wait -------------------------------------------------------------------------------------------------


@scenario
async def test_one_who_does_not_wait_has_one_attempt(lane: Lane) -> None:
    first = lane.come("1", wait=0)
    await settled()
    lane.answer(HELD)
    assert (await refused(first), lane.attempts) == ("lock_held", [])


@scenario
async def test_one_who_does_not_wait_behind_others_is_refused_by_an_attempt_of_the_first(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.answer(HELD)
    second, third = lane.come("2", wait=0), lane.come("3", wait=0)
    await settled()
    assert lane.attempts == ["1"]
    lane.answer(HELD)
    assert (await refused(second), await refused(third), lane.attempts) == ("lock_held", "lock_held", [])
    await leave(first)


@scenario
async def test_one_whose_time_ends_during_an_attempt_of_its_own_may_still_get_the_lock(lane: Lane) -> None:
    first = lane.come("1", wait=0.001)
    await asyncio.sleep(0.005)
    assert not first.done()
    lane.grant()
    assert await got(first) == "1"


@scenario
async def test_one_whose_time_ends_during_an_attempt_of_its_own_is_refused_by_that_one(lane: Lane) -> None:
    first = lane.come("1", wait=1e-9)
    await settled()
    lane.answer(HELD)
    assert (await refused(first), lane.asked) == ("lock_held", [])


@scenario
async def test_those_whose_time_ends_during_an_attempt_hear_of_the_lease_that_came_of_it(lane: Lane) -> None:
    [first] = await come(lane, "1")
    second, third = lane.come("2", wait=0), lane.come("3")
    await settled()
    lane.grant()
    assert (await got(first), await refused(second), lane.queues.waiting_for("l")) == ("1", "lock_held", 1)
    await leave(third)


@scenario
async def test_one_whose_time_ends_is_told_who_holds_the_lock_by_then(lane: Lane) -> None:
    first = lane.come("1", wait=0.05)
    await settled()
    lane.answer(HELD)
    while not lane.attempts:  # noqa: ASYNC110 - the event is a timer's
        await asyncio.sleep(0)
    lane.answer(Held(lease("other", expires_at=NOW + 7 * SECOND), NOW + 2 * SECOND))
    with pytest.raises(ServiceError) as caught:
        await first
    assert (caught.value.code, caught.value.headers) == ("lock_held", {"Retry-After": "5"})


# Failures -----------------------------------------------------------------------------------------------------


@scenario
async def test_an_error_goes_to_the_one_whose_attempt_it_was_and_the_next_tries(lane: Lane) -> None:
    first, second = await come(lane, "1", "2")
    lane.answer(ServiceError("storage_full", "the disk is full"))
    assert (lane.attempts, lane.releases) == (["2"], [])
    lane.grant()
    assert (await refused(first), await got(second)) == ("storage_full", "2")


@scenario
async def test_an_acquisition_of_which_nobody_knows_is_released(lane: Lane) -> None:
    first, second = await come(lane, "1", "2")
    lane.answer(outcome_unknown())
    assert [type(operation) for operation, _ in lane.asked] == [Release, Acquire]
    assert await refused(first) == "unavailable"
    lane.answer(Released("l", 2))
    lane.grant()
    assert await got(second) == "2"


@pytest.mark.parametrize("decided", ["released", "lease_lost", "lock_not_found"])
def test_an_abandoned_lease_is_released_again_until_the_engine_takes_it(decided: str) -> None:
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


def test_only_so_many_leases_of_which_nobody_knows_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MAX_ABANDONED_LEASES", 3)

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
async def test_an_acquisition_that_was_surely_not_stored_is_not_released(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.answer(unavailable("the database cannot be reached at present"))
    assert await refused(first) == "unavailable"
    assert lane.asked == []


@scenario
async def test_an_attempt_that_cannot_be_made_is_made_later(lane: Lane) -> None:
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


# Bounds and the end -------------------------------------------------------------------------------------------


@scenario
async def test_a_thousand_wait_and_the_next_is_refused(lane: Lane) -> None:
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
async def test_at_the_end_all_are_sent_away_but_the_one_whose_attempt_is_under_way(lane: Lane) -> None:
    first, second, third = await come(lane, "1", "2", "3")
    lane.queues.stop()
    assert [await refused(task) for task in (second, third)] == ["unavailable"] * 2
    assert not first.done()
    lane.grant()
    assert await got(first) == "1"
    assert await refused(lane.come("4")) == "unavailable"


@scenario
async def test_at_the_end_an_attempt_that_finds_the_lock_held_is_the_last(lane: Lane) -> None:
    [first] = await come(lane, "1")
    lane.queues.stop()
    lane.queues.wake(["l"])
    lane.answer(HELD)
    assert (await refused(first), lane.attempts) == ("unavailable", [])


@scenario
async def test_a_lease_granted_to_one_whose_end_was_not_read_yet_is_released(lane: Lane) -> None:
    gone = lane.come("gone", is_there=lambda: False)
    [staying] = await come(lane, "staying")
    lane.grant()
    await settled()
    assert (gone.cancelled(), lane.releases) == (True, ["gone"])
    lane.answer(Released("l", 2))
    lane.queues.wake(["l"])
    lane.grant()
    assert await got(staying) == "staying"
