"""Waiting reads on a space whose reads complete when the test says so, as those of PostgreSQL do later."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from leasehold.engines.base import Published, ReadDone
from leasehold.engines.memory.space import MemorySpace
from leasehold.errors import ServiceError, unavailable
from leasehold.model import (
    ENTRY,
    AnyKind,
    Change,
    Condition,
    Deletion,
    Entry,
    Found,
    Kind,
    NotModified,
    Outcome,
    R,
    Read,
)
from leasehold.store.turns import Places
from leasehold.store.waiting_reads import SLICE_BYTES, WaitingReads

SECONDS = 60.0


class SlowSpace(MemorySpace):
    """Completes a read when the test calls `answer`."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[Published] = []
        self.reads: list[tuple[str, ReadDone[Entry]]] = []
        self.failure: Exception | None = None

    def subscribe(self, kind: AnyKind, published: Published) -> None:
        assert kind is ENTRY
        self.published.append(published)

    def read(self, kind: Kind[R], name: str, done: ReadDone[R]) -> None:
        assert kind is ENTRY
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        self.reads.append((name, done))  # type: ignore[arg-type] # only entries are read

    def publish(self, *changes: Change) -> None:
        """Tell of a commit: of this server with its changes, or of another one without."""
        for published in self.published:
            published(1, changes or None)

    async def answer(self, result: Entry | ServiceError | None) -> list[str]:
        """Complete all reads that have begun. Returns their keys."""
        reads, self.reads = self.reads, []
        for _, done in reads:
            done(result)
        await settle()
        return [name for name, _ in reads]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def entry(revision: int, value: bytes = b"1") -> Entry:
    return Entry("a", value, revision, 1, 1)


def unless(*revisions: int) -> Read:
    return Read("a", None, Condition(if_none_match=revisions))


Begin = Callable[..., "asyncio.Task[Outcome]"]
Scenario = Callable[[WaitingReads, SlowSpace, Begin], Awaitable[None]]


def scenario(test: Scenario) -> Callable[[], None]:
    def run() -> None:
        async def play() -> None:
            space = SlowSpace()
            waiting = WaitingReads(space, Places(5))

            def begin(read: Read = unless(1), seconds: float = 60.0) -> "asyncio.Task[Outcome]":  # noqa: B008 - frozen
                return asyncio.create_task(waiting.read(read, seconds))

            async with asyncio.timeout(SECONDS):
                await test(waiting, space, begin)
            assert len(waiting) == 0
            assert waiting._keys == {}

        asyncio.run(play())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


# Reads --------------------------------------------------------------------------------------------------------


@scenario
async def test_a_key_is_read_once_for_all_its_waiters(waiting: WaitingReads, space: SlowSpace, begin: Begin) -> None:
    tasks = [begin() for _ in range(5)]
    await settle()
    await space.answer(entry(1))
    space.publish(entry(2))
    assert await space.answer(entry(2)) == ["a"]
    assert [await task for task in tasks] == [Found(entry(2))] * 5


@scenario
async def test_a_commit_of_another_server_reads_each_key_that_is_waited_for(
    waiting: WaitingReads, space: SlowSpace, begin: Begin
) -> None:
    tasks = [begin(Read(key)) for key in ("a", "b", "a")]
    await settle()
    assert await space.answer(None) == ["a", "b", "a"]
    space.publish()
    assert await space.answer(entry(2)) == ["a", "b"]
    assert [await task for task in tasks] == [Found(entry(2))] * 3


@scenario
async def test_changes_during_a_read_cause_one_more_read(waiting: WaitingReads, space: SlowSpace, begin: Begin) -> None:
    task = begin()
    await settle()
    await space.answer(entry(1))
    for _ in range(3):
        space.publish(entry(2))
    assert await space.answer(entry(1)) == ["a"]
    assert not task.done()
    assert await space.answer(entry(2)) == ["a"]
    assert await task == Found(entry(2))
    assert space.reads == []


@scenario
async def test_a_waiter_gets_no_result_of_a_read_that_began_before_it_came(
    waiting: WaitingReads, space: SlowSpace, begin: Begin
) -> None:
    """It knows revision 2, and the read that is on its way still sees revision 1."""
    first = begin(unless(1))
    await settle()
    await space.answer(entry(1))
    space.publish(entry(2))
    late = begin(unless(2))
    await settle()
    [(_, old), (_, own)] = space.reads
    space.reads = []
    old(entry(1))
    await settle()
    assert not late.done()
    own(entry(2))
    await settle()
    assert not late.done()
    space.publish(entry(3))
    await space.answer(entry(3))
    assert [await first, await late] == [Found(entry(3))] * 2


@scenario
async def test_other_keys_are_not_read(waiting: WaitingReads, space: SlowSpace, begin: Begin) -> None:
    task = begin()
    await settle()
    await space.answer(entry(1))
    space.publish(Entry("b", b"1", 2, 1, 1), Deletion("c", 3))
    assert space.reads == []
    task.cancel()
    await settle()
    space.publish()
    assert space.reads == []


# Ends ---------------------------------------------------------------------------------------------------------


@scenario
async def test_the_end_of_the_time_gives_the_result_of_a_new_read(
    waiting: WaitingReads, space: SlowSpace, begin: Begin
) -> None:
    """The change was committed, and nothing has told of it yet."""
    task = begin(seconds=0.05)
    await settle()
    await space.answer(entry(1))
    while not space.reads:  # noqa: ASYNC110 - nothing tells of a read
        await asyncio.sleep(0.01)
    await space.answer(entry(2))
    assert await task == Found(entry(2))


@scenario
async def test_a_stop_gives_the_last_result_without_a_read(
    waiting: WaitingReads, space: SlowSpace, begin: Begin
) -> None:
    known, unknown = begin(), begin(Read("b"))
    await settle()
    (_, first), (_, second) = space.reads
    first(entry(1))
    await settle()
    waiting.stop()
    assert await known == NotModified(1)
    second(None)
    with pytest.raises(ServiceError, match="does not exist"):
        await unknown
    late = begin()
    await settle()
    await space.answer(entry(1))
    assert await late == NotModified(1)


@scenario
async def test_one_waiter_more_than_the_limit_is_refused(waiting: WaitingReads, space: SlowSpace, begin: Begin) -> None:
    tasks = [begin() for _ in range(5)]
    await settle()
    with pytest.raises(ServiceError) as refused:
        await waiting.read(unless(1), 60.0)
    assert (refused.value.code, refused.value.details) == ("too_many_requests", {"limit": 5})
    tasks.pop().cancel()
    await settle()
    tasks.append(begin())
    await settle()
    assert len(waiting) == 5
    await space.answer(entry(2))
    assert [await task for task in tasks] == [Found(entry(2))] * 5


# Faults -------------------------------------------------------------------------------------------------------


@scenario
async def test_an_error_of_the_storage_ends_the_wait(waiting: WaitingReads, space: SlowSpace, begin: Begin) -> None:
    task = begin()
    await settle()
    await space.answer(entry(1))
    space.publish()
    await space.answer(unavailable("away"))
    with pytest.raises(ServiceError, match="away"):
        await task


@scenario
async def test_a_read_that_could_not_begin_is_repeated(waiting: WaitingReads, space: SlowSpace, begin: Begin) -> None:
    task = begin()
    await settle()
    await space.answer(entry(1))
    space.failure = MemoryError()
    space.publish(entry(2))
    assert space.reads == []
    waiting.catch_up()
    await space.answer(entry(2))
    assert await task == Found(entry(2))


@scenario
async def test_an_exception_in_a_decision_ends_one_wait(waiting: WaitingReads, space: SlowSpace, begin: Begin) -> None:
    faulty, good = begin(Read("a", (("b",),))), begin(Read("a"))
    await settle()
    await space.answer(entry(2, b"no JSON"))
    with pytest.raises(Exception, match=r"malformed|JSON|read"):
        await faulty
    assert await good == Found(entry(2, b"no JSON"))


@pytest.mark.parametrize("paths", [None, (("a",),)], ids=["whole", "part"])
def test_waiters_for_a_large_value_are_decided_in_slices(paths: tuple[tuple[str, ...], ...] | None) -> None:
    decided: list[int] = []

    @scenario
    async def run(waiting: WaitingReads, space: SlowSpace, begin: Begin) -> None:
        value = b'{"a":"%b"}' % (b"x" * SLICE_BYTES if paths is None else b"")
        tasks = [begin(Read("a", paths)) for _ in range(4)]
        await asyncio.sleep(0)
        reads, space.reads = space.reads, []
        for _, done in reads:
            done(entry(2, value))
        for _ in range(12):
            await asyncio.sleep(0)
            decided.append(sum(task.done() for task in tasks))
        await asyncio.gather(*tasks)

    run()
    assert {1, 2, 3, 4} <= set(decided)
