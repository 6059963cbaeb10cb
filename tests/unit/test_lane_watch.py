"""The lane counts as degraded while changes wait and no batch ends, and only then."""

import asyncio
from collections.abc import Coroutine

import pytest
from driving import memory_of

from leasehold.engines.base import CommitDone, Decide
from leasehold.engines.memory.space import MemorySpace
from leasehold.limits import STALLED_LANE_SECONDS, Limits
from leasehold.model import Put, Touched
from leasehold.store import lane as lane_module
from leasehold.store.lane_watch import LaneWatch
from leasehold.store.store import Store
from leasehold.tasks import cancel_and_wait, start_task

SECONDS = 60.0


class Lane:
    """A lane to watch. `batches`: the number that have ended, None while no change waits."""

    def __init__(self) -> None:
        self.progress: int | None = None
        self.watch = LaneWatch(lambda: self.progress)

    def check(self, times: int) -> bool:
        """Whether the lane counts as stalled after this many checks."""
        for _ in range(times):
            self.watch.check()
        return self.watch.fault is not None


def test_a_lane_that_stalls_for_the_limit_is_a_fault() -> None:
    lane = Lane()
    lane.progress = 7
    assert not lane.check(STALLED_LANE_SECONDS)
    assert lane.check(1)
    assert lane.watch.fault is not None
    assert (lane.watch.fault.code, lane.watch.fault.message) == (
        "unavailable",
        "no change has been made durable for 30 seconds",
    )


def test_an_idle_lane_is_not_a_fault() -> None:
    assert not Lane().check(3 * STALLED_LANE_SECONDS)


def test_a_slow_lane_is_not_a_fault() -> None:
    lane = Lane()
    for batches in range(5):
        lane.progress = batches
        assert not lane.check(STALLED_LANE_SECONDS)


@pytest.mark.parametrize("progress", [8, None])
def test_the_fault_ends_when_the_lane_continues(progress: int | None) -> None:
    lane = Lane()
    lane.progress = 7
    assert lane.check(STALLED_LANE_SECONDS + 1)
    lane.progress = progress
    assert not lane.check(1)


class Silent(MemorySpace):
    """An engine whose commits never complete."""

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:
        pass


def test_a_store_with_a_stalled_lane_reports_it_and_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "LANE_END_SECONDS", 0.01)

    async def run() -> None:
        store = Store(memory_of(Silent()), Limits())
        await store.open()
        store.submit(Put("a", b"1"), lambda _: None)
        for _ in range(5):
            await asyncio.sleep(0)
        assert (store.fault, store.gauges()["degraded"]) == (None, 0)
        for _ in range(STALLED_LANE_SECONDS + 1):
            store._lane._watch.check()
        assert store.fault is not None
        assert store.gauges()["degraded"] == 1
        async with asyncio.timeout(SECONDS):
            await store.close()

    asyncio.run(run())


def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def swallows() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1

    async def run() -> None:
        task = asyncio.create_task(swallows())
        await asyncio.sleep(0)
        async with asyncio.timeout(SECONDS):
            await cancel_and_wait(task)
        assert task.done()

    asyncio.run(run())
    assert swallowed == 2


def test_a_task_that_cannot_be_registered_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    async def work() -> None:
        ran.append(1)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        real = loop.create_task

        def create_task(coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
            tasks.append(real(coroutine))  # scheduled before it is registered, as in asyncio
            raise MemoryError

        tasks: list[asyncio.Task[None]] = []
        with monkeypatch.context() as patch:
            patch.setattr(loop, "create_task", create_task)
            with pytest.raises(MemoryError):
                start_task(loop, work())
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    assert ran == []
