"""The stores of all namespaces: what idle ones cost, and what one task and one timer do for all of them."""

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest
from acquiring import acquired
from driving import FrozenClock
from structlog.testing import capture_logs

from leasehold.engines.memory.engine import MemoryEngine
from leasehold.engines.memory.space import SLICE_SPACES
from leasehold.errors import ServiceError
from leasehold.http.event_formats import FORMATS
from leasehold.http.media_types import Media
from leasehold.limits import KIB, MAX_WAITING_READS, Limits
from leasehold.model import RECEIPT, Acquire, Put, QuotaChange, Read, Written
from leasehold.store import cleaning, live_watchers, ticking
from leasehold.store.stores import Stores
from leasehold.store.watchers import Interest, Watch

WAIT_SECONDS = 30.0
SECOND = 1_000_000
LONG = 3_600 * SECOND
LINES = FORMATS[Media.NDJSON, True]


class Sink:
    """A client that reads at once."""

    is_paused = False

    def __init__(self) -> None:
        self.written = asyncio.Event()
        self.text = b""

    def write(self, data: bytes) -> None:
        self.text += data
        self.written.set()

    async def give_way(self) -> None:
        await asyncio.sleep(0)

    def abort(self) -> None:
        pass


class Told(MemoryEngine):
    """An engine whose namespaces another server may delete. A deletion takes until `may_delete` is set."""

    def __init__(self, *, clock: FrozenClock) -> None:
        super().__init__(clock=clock)
        self.may_delete = asyncio.Event()
        self.may_delete.set()

    def subscribe(self, deleted: Callable[[str], None]) -> None:
        self.tell = deleted

    async def delete(self, name: str) -> int:
        await self.may_delete.wait()
        return await super().delete(name)


class Loop(asyncio.SelectorEventLoop):
    """Knows the timers that have not been cancelled."""

    def timers(self) -> int:
        return sum(1 for each in self._scheduled if not each.cancelled())  # type: ignore[attr-defined, misc]


@dataclass
class Scene:
    stores: Stores
    engine: Told
    clock: FrozenClock

    async def create(self, *names: str) -> None:
        for name in names:
            await self.stores.create(name, QuotaChange())

    async def entries(self, name: str) -> int:
        return (await self.engine.namespace(name)).usage.entries


def scenario(test: Callable[[Scene], Awaitable[None]]) -> Callable[[pytest.MonkeyPatch], None]:
    """Run a test on new stores. What is done every second is done every few milliseconds."""

    def run(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cleaning, "CLEANING_SECONDS", 0.005)
        monkeypatch.setattr(ticking, "TICK_SECONDS", 0.005)
        monkeypatch.setattr(live_watchers, "TICK_SECONDS", 0.005)

        async def play() -> None:
            clock = FrozenClock()
            engine = Told(clock=clock)
            stores = Stores(engine, Limits())
            async with asyncio.timeout(WAIT_SECONDS):
                await stores.start()
                await asyncio.sleep(0)  # then the task has begun
                await test(Scene(stores, engine, clock))
                await stores.close()

        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(play())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def tasks_and_timers() -> tuple[int, int]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    return len(asyncio.all_tasks()), loop.timers()


def idle_bytes(count: int) -> int:
    """How many bytes so many more idle namespaces take."""

    async def measure() -> int:
        stores = Stores(MemoryEngine(), Limits())
        await stores.start()
        await stores.create("first", QuotaChange())
        await stores.open("first")  # what the first one needs, such as imports
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            name = f"n{number}"
            await stores.create(name, QuotaChange())
            await stores.open(name)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await stores.close()
        return after - before

    return asyncio.run(measure())


def test_an_idle_namespace_takes_at_most_8_kib() -> None:
    assert idle_bytes(200) / 200 < 8 * KIB


@scenario
async def test_idle_namespaces_have_no_task_and_no_timer(scene: Scene) -> None:
    before = tasks_and_timers()
    names = [f"n{number}" for number in range(50)]
    await scene.create(*names)
    for name in names:
        await (await scene.stores.open(name)).change(Put("key", b"1"))
    assert tasks_and_timers() == before


@scenario
async def test_a_namespace_that_nobody_watches_any_more_has_no_task(scene: Scene) -> None:
    await scene.create("a")
    store = await scene.stores.open("a")
    before = tasks_and_timers()
    for round_ in range(2):
        sink = Sink()
        watching = asyncio.create_task(store.watch(Watch(Interest(("",), LINES)), sink))
        await sink.written.wait()
        sink.written.clear()
        await store.change(Put(f"key-{round_}", b"1"))
        await sink.written.wait()
        assert f"key-{round_}".encode() in sink.text
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        while tasks_and_timers() != before:  # noqa: ASYNC110 - nothing tells of the end
            await asyncio.sleep(0.001)


@scenario
async def test_expired_records_are_removed_in_all_namespaces(scene: Scene) -> None:
    await scene.create("a", "b")
    for name in ("a", "default"):
        store = await scene.stores.open(name)
        await store.change(Put("over", b"1", ttl=SECOND))
        await acquired(store, Acquire("l", f"id-{name}", SECOND), 0)
    scene.clock.now += 2 * SECOND
    while await scene.entries("a") or await scene.entries("default"):  # noqa: ASYNC110 - cleaning tells nobody
        await asyncio.sleep(0.001)
    assert [scene.engine.space(name).gauges()["leases"] for name in ("a", "default")] == [0, 0]
    assert scene.stores.opened("b") is None


@scenario
async def test_expired_records_are_removed_where_no_store_is_open(scene: Scene) -> None:
    await scene.create("a")
    other = Stores(scene.engine, Limits())  # as if another server had written them
    await (await other.open("a")).change(Put("over", b"1", ttl=SECOND))
    assert scene.stores.opened("a") is None
    scene.clock.now += 2 * SECOND
    while await scene.entries("a"):  # noqa: ASYNC110 - cleaning tells nobody
        await asyncio.sleep(0.001)


@scenario
async def test_other_work_is_done_while_many_namespaces_are_searched(scene: Scene) -> None:
    await scene.create(*(f"n{number}" for number in range(3 * SLICE_SPACES)))
    iterations = 0

    async def work() -> None:
        nonlocal iterations
        while True:
            iterations += 1
            await asyncio.sleep(0)

    working = asyncio.create_task(work())
    for search in (scene.engine.expired(10), scene.engine.surplus(RECEIPT, 1, 1, 10)):
        before = iterations
        assert await search == []
        assert iterations >= before + 3
    working.cancel()


@scenario
async def test_one_namespace_that_fails_does_not_keep_the_others_from_being_cleaned(scene: Scene) -> None:
    await scene.create("a", "b")
    for name in ("a", "b"):
        await (await scene.stores.open(name)).change(Put("over", b"1", ttl=SECOND))
    (await scene.stores.open("a"))._lane.refuse_all()
    with capture_logs() as logs:
        scene.clock.now += 2 * SECOND
        while await scene.entries("b"):  # noqa: ASYNC110 - cleaning tells nobody
            await asyncio.sleep(0.001)
    assert {each["event"] for each in logs} == {"expired records could not be removed"}


@scenario
async def test_a_namespace_that_another_server_deletes_is_over_here(scene: Scene) -> None:
    await scene.create("a")
    store = await scene.stores.open("a")
    await acquired(store, Acquire("l", "1", LONG), 0)
    waiting = asyncio.create_task(acquired(store, Acquire("l", "2", LONG), 60))
    reading = asyncio.create_task(store.fetch_waiting(Read("missing"), 60))
    while store.gauges()["waiters"] < 1 or store.gauges()["waiting_reads"] < 1:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)
    await scene.engine.delete("a")
    scene.engine.tell("a")
    for each in (waiting, reading):
        with pytest.raises(ServiceError) as caught:
            await each
        assert caught.value.code == "no_such_namespace"
    assert scene.stores.opened("a") is None
    with pytest.raises(ServiceError) as caught:
        await scene.stores.open("a")
    assert caught.value.code == "no_such_namespace"


@scenario
async def test_the_reads_that_wait_in_all_namespaces_have_one_limit(scene: Scene) -> None:
    await scene.create("a", "b")
    stores = [await scene.stores.open(name) for name in ("a", "b", "default")]
    waiting = [
        asyncio.create_task(stores[number % 2].fetch_waiting(Read("missing"), 60))
        for number in range(MAX_WAITING_READS)
    ]
    while sum(int(store.gauges()["waiting_reads"]) for store in stores) < MAX_WAITING_READS:  # noqa: ASYNC110
        await asyncio.sleep(0)
    for store in stores:
        with pytest.raises(ServiceError) as caught:
            await store.fetch_waiting(Read("missing"), 60)
        assert caught.value.code == "too_many_requests"
    await scene.stores.delete("a")
    await asyncio.gather(*waiting[::2], return_exceptions=True)
    with pytest.raises(ServiceError) as caught:
        await stores[2].fetch_waiting(Read("missing"), 0)
    assert caught.value.code == "not_found", "a place is free"
    stores[1].stop_waiting()
    await asyncio.gather(*waiting[1::2], return_exceptions=True)


@scenario
async def test_a_deletion_is_done_to_its_end_although_its_caller_has_left(scene: Scene) -> None:
    await scene.create("a")
    store = await scene.stores.open("a")
    await acquired(store, Acquire("l", "1", LONG), 0)
    waiting = asyncio.create_task(acquired(store, Acquire("l", "2", LONG), 60))
    while store.gauges()["waiters"] < 1:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)
    scene.engine.may_delete.clear()
    deleting = asyncio.create_task(scene.stores.delete("a"))
    await asyncio.sleep(0)
    deleting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    scene.engine.may_delete.set()
    with pytest.raises(ServiceError) as caught:
        await waiting
    assert caught.value.code == "no_such_namespace"
    await scene.create("a")
    again = await scene.stores.open("a")
    assert isinstance(await again.change(Put("key", b"1")), Written)


@scenario
async def test_a_store_that_fails_does_not_keep_the_others_from_being_called(scene: Scene) -> None:
    await scene.create("a")
    store = await scene.stores.open("a")
    called = asyncio.Event()

    def fail() -> None:
        raise ValueError("a bug")

    scene.stores.default.tick = fail  # type: ignore[method-assign]
    store.tick = called.set  # type: ignore[method-assign]
    with capture_logs() as logs:
        for _ in range(2):
            called.clear()
            await called.wait()
    assert logs
