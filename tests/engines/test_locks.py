"""The store with its lane and queues on each engine, with a clock that stands still.

The state of a lease in the last microsecond before its end, and at its end.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from acquiring import acquired
from databases import ENGINES, vacate
from driving import FrozenClock, stores_of

from leasehold.errors import ServiceError
from leasehold.limits import Limits
from leasehold.model import (
    Acquire,
    Delete,
    JsonPatch,
    Lease,
    Leased,
    MergePatch,
    Operation,
    Outcome,
    PatchStep,
    Put,
    Release,
    Released,
    Renew,
)
from leasehold.store.store import Store

T = TypeVar("T")

SECOND = 1_000_000
WRITES: dict[str, Callable[[str], Operation]] = {
    "put": lambda lease_id: Put("key", b"1", lease_id=lease_id),
    "put-at": lambda lease_id: Put("key", b"1", ("a",), lease_id=lease_id),
    "merge-patch": lambda lease_id: MergePatch("key", {"a": 1}, lease_id=lease_id),
    "json-patch": lambda lease_id: JsonPatch("key", (PatchStep("add", ("a",), 1),), lease_id=lease_id),
    "delete": lambda lease_id: Delete("key", lease_id=lease_id),
    "delete-at": lambda lease_id: Delete("key", ("a",), lease_id=lease_id),
}


class Driver:
    """A store, driven from plain tests."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._runner = asyncio.Runner()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.get_loop().run_until_complete(coroutine)

    async def submit(self, operation: Operation) -> Outcome:
        result: asyncio.Future[Outcome | ServiceError] = asyncio.get_running_loop().create_future()
        self.store.submit(operation, result.set_result)
        outcome = await result
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome

    def do(self, operation: Operation) -> Outcome:
        return self.run(self.submit(operation))

    def refusal(self, operation: Operation) -> tuple[str, int]:
        with pytest.raises(ServiceError) as caught:
            self.do(operation)
        return caught.value.code, caught.value.status

    def acquire(self, lock: str, lease_id: str, seconds: int = 10, *, wait: float = 0.0) -> Lease:
        return self.run(acquired(self.store, Acquire(lock, lease_id, seconds * SECOND, b'{"n":1}', "alice"), wait))

    def remove_expired(self) -> None:
        self.run(stores_of(self.store)._cleaning.remove_expired())

    def close(self) -> None:
        self.run(self.store.close())
        self._runner.close()


async def waiting_for(store: Store, count: int) -> None:
    """Return when so many requests wait for the lock `l`."""
    async with asyncio.timeout(10):
        while store.waiting_for("l") < count:  # noqa: ASYNC110 - whoever comes tells nobody
            await asyncio.sleep(0)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture(params=sorted(ENGINES))
def driver(request: pytest.FixtureRequest, tmp_path: Path, clock: FrozenClock) -> Iterator[Driver]:
    driver = Driver(Store(ENGINES[request.param](tmp_path, clock), Limits()))
    driver.run(driver.store.open())
    yield driver
    driver.close()
    vacate(tmp_path)


def test_a_lock_is_held_for_its_ttl_and_free_at_its_end(driver: Driver, clock: FrozenClock) -> None:
    first = driver.acquire("l", "1")
    assert (first.acquired_at, first.expires_at) == (clock.now, clock.now + 10 * SECOND)
    clock.now += 10 * SECOND - 1
    with pytest.raises(ServiceError) as caught:
        driver.acquire("l", "2")
    assert (caught.value.code, caught.value.headers["Retry-After"]) == ("lock_held", "1")
    clock.now += 1
    second = driver.acquire("l", "2")
    assert second.token > first.token


def test_a_lease_is_renewed_up_to_its_last_microsecond(driver: Driver, clock: FrozenClock) -> None:
    lease = driver.acquire("l", "1")
    clock.now += 10 * SECOND - 1
    renewed = driver.do(Renew("l", "1", 10 * SECOND))
    assert isinstance(renewed, Leased)
    assert (renewed.lease.token, renewed.lease.expires_at) == (lease.token, clock.now + 10 * SECOND)
    clock.now += 10 * SECOND
    assert driver.refusal(Renew("l", "1", 10 * SECOND)) == ("lease_lost", 409)


def test_a_lease_is_released_up_to_its_last_microsecond(driver: Driver, clock: FrozenClock) -> None:
    driver.acquire("l", "1")
    driver.acquire("m", "2")
    clock.now += 10 * SECOND - 1
    assert isinstance(driver.do(Release("l", "1")), Released)
    clock.now += 1
    assert driver.refusal(Release("m", "2")) == ("lock_not_found", 404)


def test_a_lease_is_released_by_its_token_or_by_force(driver: Driver) -> None:
    lease = driver.acquire("l", "1")
    assert driver.refusal(Release("l", holder=lease.holder, token=lease.token + 1)) == ("lease_lost", 409)
    assert isinstance(driver.do(Release("l", holder=lease.holder, token=lease.token)), Released)
    driver.acquire("l", "2")
    assert isinstance(driver.do(Release("l", is_forced=True)), Released)
    assert driver.refusal(Release("l", is_forced=True)) == ("lock_not_found", 404)


def test_a_lock_is_shown_up_to_the_last_microsecond_of_its_lease(driver: Driver, clock: FrozenClock) -> None:
    lease = driver.acquire("l", "1")
    clock.now += 10 * SECOND - 1
    assert driver.run(driver.store.lease("l")) == lease
    assert driver.run(driver.store.lease_page([""], None, 10)).records == [lease]
    clock.now += 1
    assert driver.run(driver.store.lease("l")) is None
    assert driver.run(driver.store.lease_page([""], None, 10)).records == []


@pytest.mark.parametrize("kind", sorted(WRITES))
def test_a_fenced_write_is_done_up_to_the_last_microsecond_of_its_lease(
    driver: Driver, clock: FrozenClock, kind: str
) -> None:
    driver.do(Put("key", b'{"a":0}'))
    driver.acquire("l", "1")
    clock.now += 10 * SECOND - 1
    driver.do(WRITES[kind]("1"))
    driver.do(Put("key", b'{"a":0}'))
    before = driver.store.space.revision
    clock.now += 1
    assert driver.refusal(WRITES[kind]("1")) == ("lease_lost", 412)
    assert driver.store.space.revision == before


@pytest.mark.parametrize("meanwhile", ["nothing", "taken", "taken and released", "cleaned up"])
def test_an_expired_lease_is_not_valid_again_whatever_happens_later(
    driver: Driver, clock: FrozenClock, meanwhile: str
) -> None:
    driver.acquire("l", "1")
    clock.now += 10 * SECOND
    if meanwhile.startswith("taken"):
        driver.acquire("l", "2")
    if meanwhile == "taken and released":
        driver.do(Release("l", "2"))
    if meanwhile == "cleaned up":
        driver.remove_expired()
    assert driver.refusal(Put("key", b"1", lease_id="1")) == ("lease_lost", 412)
    assert driver.refusal(Renew("l", "1", SECOND)) == ("lease_lost", 409)
    held = meanwhile == "taken"
    assert driver.refusal(Release("l", "1")) == (("lease_lost", 409) if held else ("lock_not_found", 404))


def test_a_release_with_an_old_lease_id_does_not_end_the_lease_of_the_next_holder(
    driver: Driver, clock: FrozenClock
) -> None:
    driver.acquire("l", "1")
    clock.now += 10 * SECOND
    second = driver.acquire("l", "2")
    assert driver.refusal(Release("l", "1")) == ("lease_lost", 409)
    assert driver.run(driver.store.lease("l")) == second


def test_fencing_tokens_grow_after_expiry_release_and_deletion(driver: Driver, clock: FrozenClock) -> None:
    tokens = []
    for number in range(6):
        tokens.append(driver.acquire("l", f"{number}", 1).token)
        if number % 3 == 0:
            driver.do(Release("l", f"{number}"))
        else:
            clock.now += SECOND
        if number % 3 == 2:
            driver.remove_expired()
    assert tokens == sorted(set(tokens))


def test_only_expired_entries_and_leases_are_removed(driver: Driver, clock: FrozenClock) -> None:
    for number in range(3):
        driver.acquire(f"over/{number}", f"o{number}", 1)
        driver.acquire(f"alive/{number}", f"a{number}", 2)
        driver.do(Put(f"over/{number}", b"1", ttl=SECOND))
        driver.do(Put(f"alive/{number}", b"1", ttl=2 * SECOND))
    clock.now += SECOND
    driver.remove_expired()
    clock.now -= SECOND
    leases = driver.run(driver.store.lease_page([""], None, 100)).records
    entries = driver.run(driver.store.page([""], None, 100)).records
    expected = [f"alive/{number}" for number in range(3)]
    assert ([lease.lock for lease in leases], [entry.key for entry in entries]) == (expected, expected)


def test_a_waiter_gets_the_lock_at_the_exact_end_of_the_previous_lease(driver: Driver, clock: FrozenClock) -> None:
    first = driver.acquire("l", "1", 1)

    async def wait() -> Lease:
        waiting = asyncio.create_task(acquired(driver.store, Acquire("l", "2", SECOND), 30))
        await waiting_for(driver.store, 1)
        clock.now = first.expires_at - 1
        driver.store._queues.wake(["l"])  # an attempt now finds that it is still held
        await driver.submit(Put("key", b"1"))
        assert not waiting.done()
        clock.now = first.expires_at
        driver.store._queues.wake(None)
        return await waiting

    assert driver.run(wait()).acquired_at == first.expires_at


def test_a_waiter_that_was_cancelled_never_gets_the_lock(driver: Driver, clock: FrozenClock) -> None:
    driver.acquire("l", "1")

    async def leave_and_release() -> Lease:
        leaving = asyncio.create_task(acquired(driver.store, Acquire("l", "2", SECOND), 30))
        staying = asyncio.create_task(acquired(driver.store, Acquire("l", "3", SECOND), 30))
        await waiting_for(driver.store, 2)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        await driver.submit(Release("l", "1"))
        return await staying

    lease = driver.run(leave_and_release())
    assert lease.lease_id == "3"
    assert driver.store.waiting_for("l") == 0


def test_a_lease_is_released_if_its_caller_was_cancelled_before_the_answer(driver: Driver, clock: FrozenClock) -> None:
    async def vanish() -> Lease:
        vanishing = asyncio.create_task(acquired(driver.store, Acquire("l", "1", 1000 * SECOND), 30))
        await asyncio.sleep(0)  # its attempt is in the lane
        vanishing.cancel()
        with suppress(asyncio.CancelledError):
            await vanishing
        return await acquired(driver.store, Acquire("l", "2", SECOND), 30)

    assert driver.run(vanish()).lease_id == "2"
