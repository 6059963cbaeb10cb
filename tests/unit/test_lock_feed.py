"""Lock queues are woken by the feed of leases: by the changes that it tells, or by those that are asked for."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from acquiring import acquired
from driving import memory_of

from leasehold.engines.memory.space import MemorySpace
from leasehold.errors import ServiceError, unavailable
from leasehold.limits import Limits
from leasehold.model import LEASE, Acquire, AnyKind, Change, Changes, LeaseEnd, Release
from leasehold.store.store import Store
from leasehold.store.stores import Stores

SECONDS = 60.0
LONG = 3_600_000_000


class RemoteSpace(MemorySpace):
    """Its leases are changed by another server: the feed says only that something was committed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.failures: list[ServiceError] = []
        self.empty_parts = 0
        """So many parts are empty before there is one with changes."""

    def _tell(self, published: Callable[[int, Sequence[Change] | None], None]) -> None:
        self._subscribers[LEASE].append(lambda revision, _changes: published(revision, None))

    def subscribe(self, kind: AnyKind, published: Callable[[int, Sequence[Change] | None], None]) -> None:
        if kind is LEASE:
            self._tell(published)

    async def changes(self, kind: AnyKind, after_revision: int, prefix: str, limit: int) -> Changes:
        self.asked.append(after_revision)
        if self.failures:
            raise self.failures.pop(0)
        if self.empty_parts:
            self.empty_parts -= 1
            return Changes([], after_revision)
        return await super().changes(kind, after_revision, prefix, limit)


def on_a_store(test: Callable[[Store, RemoteSpace], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        async def scenario() -> None:
            space = RemoteSpace()
            stores = Stores(memory_of(space), Limits())
            async with asyncio.timeout(SECONDS):
                await stores.start()
                await test(stores.default, space)
                await stores.close()

        asyncio.run(scenario())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def waiting(store: Store, lease_id: str) -> asyncio.Task[object]:
    task: asyncio.Task[object] = asyncio.create_task(acquired(store, Acquire("l", lease_id, LONG), 60))
    while store.waiting_for("l") < 1:  # noqa: ASYNC110 - nothing tells of a waiter
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    return task


async def release(store: Store, lease_id: str) -> None:
    done = asyncio.Event()
    store.submit(Release("l", lease_id), lambda _: done.set())
    await done.wait()


@on_a_store
async def test_a_waiter_gets_a_lock_that_another_server_released(store: Store, space: RemoteSpace) -> None:
    await acquired(store, Acquire("l", "1", LONG), 0)
    waiter = await waiting(store, "2")
    await release(store, "1")
    await waiter
    assert space.asked


@on_a_store
async def test_nothing_is_asked_while_nobody_waits(store: Store, space: RemoteSpace) -> None:
    await acquired(store, Acquire("l", "1", LONG), 0)
    await release(store, "1")
    await asyncio.sleep(0)
    assert space.asked == []


@on_a_store
async def test_all_queues_are_woken_when_the_changes_are_no_longer_known(store: Store, space: RemoteSpace) -> None:
    await acquired(store, Acquire("l", "1", LONG), 0)
    waiter = await waiting(store, "2")
    space.failures = [ServiceError("revision_compacted", "too old")]
    await release(store, "1")
    await waiter


@on_a_store
async def test_the_changes_are_asked_for_again_after_a_failure(store: Store, space: RemoteSpace) -> None:
    await acquired(store, Acquire("l", "1", LONG), 0)
    waiter = await waiting(store, "2")
    space.failures = [unavailable("away")] * 2
    await release(store, "1")
    await waiter
    assert len(space.asked) >= 3


@on_a_store
async def test_parts_of_the_changes_that_end_early_are_followed_by_the_next(store: Store, space: RemoteSpace) -> None:
    await acquired(store, Acquire("l", "1", LONG), 0)
    waiter = await waiting(store, "2")
    space.empty_parts = 2
    await release(store, "1")
    await waiter
    assert space.empty_parts == 0


@pytest.mark.parametrize("count", [1, 5])
def test_only_locks_whose_lease_ended_are_woken(count: int) -> None:
    woken: list[Sequence[str] | None] = []

    @on_a_store
    async def run(store: Store, space: RemoteSpace) -> None:
        for number in range(count):
            await acquired(store, Acquire(f"l{number}", "1", LONG), 0)
        await acquired(store, Acquire("l", "1", LONG), 0)
        waiter = await waiting(store, "2")
        store._queues.wake = woken.append  # type: ignore[assignment, method-assign]
        store._lock_feed._published(space.revision, [LeaseEnd("l0", space.revision)])
        waiter.cancel()

    run()
    assert woken == [["l0"]]
