"""The write lane: which operations become one batch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from driving import memory_of

from leasehold.engines.base import CommitDone, Decide
from leasehold.engines.memory.space import MemorySpace
from leasehold.errors import ServiceError
from leasehold.limits import MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MIB, Limits
from leasehold.model import Delete, Operation, Outcome, Put, Touched, Written
from leasehold.store import lane
from leasehold.store.batch import Batch
from leasehold.store.lane import ENOUGH_OPERATIONS, Lane
from leasehold.store.next_requests import LEAST_OPERATIONS, LEAST_PAUSE, MOST_PAUSE
from leasehold.store.store import Store

SECONDS = 30.0
"""More than anything here takes."""


class Counting(MemorySpace):
    """An engine that records the size of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:
        self.sizes.append(sum(map(len, touched.names.values())))
        super().commit(touched, decide, done)


def sizes(turns: Sequence[Sequence[Operation]]) -> list[int]:
    """The sizes of the batches for operations that arrive in the given turns of the loop. Checks the order of the
    outcomes."""

    async def scenario() -> list[int]:
        space = Counting()
        store = Store(memory_of(space), Limits())
        await store.open()
        outcomes: list[Outcome | ServiceError] = []
        all_done = asyncio.Event()

        def done(outcome: Outcome | ServiceError) -> None:
            outcomes.append(outcome)
            if len(outcomes) == sum(map(len, turns)):
                all_done.set()

        for operations in turns:
            for operation in operations:
                store.submit(operation, done)
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await all_done.wait()
        await store.close()
        revisions = [outcome.entry.revision for outcome in outcomes if isinstance(outcome, Written)]
        assert revisions == list(range(1, len(revisions) + 1))
        return space.sizes

    return asyncio.run(scenario())


def puts(count: int, value: bytes = b"1") -> list[Operation]:
    return [Put(f"key/{number}", value) for number in range(count)]


def test_operations_that_arrive_in_consecutive_turns_become_one_batch() -> None:
    assert sizes([puts(3), puts(1), puts(2), puts(1)]) == [7]


def test_a_turn_without_new_operations_starts_the_batch() -> None:
    assert sizes([puts(3), [], [], puts(4)]) == [3, 4]


def test_a_batch_with_enough_operations_starts_at_once() -> None:
    first, *rest = sizes([puts(ENOUGH_OPERATIONS - 1), *[puts(1)] * 20])
    assert (first, sum(rest)) == (ENOUGH_OPERATIONS, 19)


def test_a_batch_has_at_most_the_maximum_of_operations() -> None:
    assert sizes([puts(MAX_BATCH_OPERATIONS * 2 + 1)]) == [MAX_BATCH_OPERATIONS, MAX_BATCH_OPERATIONS, 1]


@pytest.mark.parametrize("others", [0, 3])
def test_a_batch_ends_with_the_value_that_exceeds_its_size(others: int) -> None:
    within = MAX_BATCH_BYTES // MIB
    values = puts(2 * within + 5, b'"' + b"x" * (MIB - 2) + b'"')
    asked = [*(Delete(f"nothing/{number}") for number in range(others)), *values]
    assert sizes([asked]) == [others + within, within, 5]


def test_operations_left_over_come_first_in_the_next_batch_which_is_smaller() -> None:
    """The revisions show that no operation is done twice, skipped or reordered."""
    document = b'{"a":0,"b":"%b"}' % (b"x" * (MIB - 100))
    updates: list[Operation] = [Put("document", b"%d" % number, ("a",)) for number in range(10)]
    asked = [Put("document", document), *updates, *puts(3)]
    assert sizes([asked]) == [len(asked), 4, *[2] * 9]


def test_batches_grow_again_after_one_that_was_decided_completely() -> None:
    document = b'{"a":0,"b":"%b"}' % (b"x" * (MIB - 100))
    updates: list[Operation] = [Put("document", b"1", ("a",))] * 3
    found = sizes([[Put("document", document), *updates, *puts(1000)]])
    assert found[0] == 1004
    assert sum(found[-3:]) > 500


# Turns --------------------------------------------------------------------------------------------------------


class Shared(Counting):
    """An engine whose storage other servers use, too."""

    def __init__(self) -> None:
        super().__init__()
        self.ready: list[Callable[[], None]] = []
        """What `turn` was called with."""
        self.fails = False
        self.turn = self._wait  # type: ignore[assignment]

    def _wait(self, ready: Callable[[], None]) -> None:
        self.ready.append(ready)
        if self.fails:
            raise MemoryError


async def asked(space: Shared, count: int) -> None:
    """Wait until the lane has asked for so many turns."""
    async with asyncio.timeout(SECONDS):
        while len(space.ready) < count:  # noqa: ASYNC110 - the lane waits for a timer
            await asyncio.sleep(0.001)


async def settle() -> None:
    """Let the loop do everything that is due."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_operations_that_come_before_the_turn_join_the_batch() -> None:
    async def scenario() -> None:
        space = Shared()
        store = Store(memory_of(space), Limits())
        await store.open()
        outcomes: list[Outcome | ServiceError] = []
        for operation in puts(3):
            store.submit(operation, outcomes.append)
        await settle()
        assert (len(space.ready), space.sizes) == (1, [])
        for operation in puts(2):
            store.submit(operation, outcomes.append)
            await settle()
        assert (len(space.ready), space.sizes) == (1, [])
        space.ready[0]()
        assert space.sizes == [5]
        assert [outcome.entry.revision for outcome in outcomes if isinstance(outcome, Written)] == [1, 2, 3, 4, 5]
        await settle()
        await store.close()
        assert len(space.ready) == 1

    asyncio.run(scenario())


def test_a_batch_that_is_taken_in_a_turn_has_at_most_the_maximum_of_operations() -> None:
    async def scenario() -> None:
        space = Shared()
        store = Store(memory_of(space), Limits())
        await store.open()
        for operation in puts(MAX_BATCH_OPERATIONS + 1):
            store.submit(operation, lambda _: None)
        await settle()
        space.ready[0]()
        await asked(space, 2)
        space.ready[1]()
        assert space.sizes == [MAX_BATCH_OPERATIONS, 1]
        await settle()
        await store.close()

    asyncio.run(scenario())


def test_the_lane_continues_after_a_wait_for_a_turn_has_failed() -> None:
    async def scenario() -> None:
        space = Shared()
        store = Store(memory_of(space), Limits())
        await store.open()
        outcomes: list[Outcome | ServiceError] = []
        space.fails = True
        store.submit(Put("a", b"1"), outcomes.append)
        await settle()
        assert [isinstance(each, ServiceError) and each.code for each in outcomes] == ["internal"]
        space.fails = False
        store.submit(Put("a", b"2"), outcomes.append)
        space.ready[0]()  # too late
        await settle()
        assert (len(outcomes), space.sizes) == (1, [])
        space.ready[1]()
        assert isinstance(outcomes[1], Written)
        await settle()
        await store.close()

    asyncio.run(scenario())


def test_the_lane_continues_after_a_batch_could_not_be_taken_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        space = Shared()
        store = Store(memory_of(space), Limits())
        await store.open()
        outcomes: list[Outcome | ServiceError] = []
        store.submit(Put("a", b"1"), outcomes.append)
        await settle()
        with monkeypatch.context() as fault:
            fault.setattr(Lane, "_take_batch", fail)
            space.ready[0]()
        assert [isinstance(each, ServiceError) and each.code for each in outcomes] == ["internal"]
        await settle()
        store.submit(Put("a", b"2"), outcomes.append)
        await settle()
        space.ready[1]()
        assert isinstance(outcomes[1], Written)
        await settle()
        await store.close()

    asyncio.run(scenario())


def fail(_lane: Lane) -> Batch:
    raise MemoryError


# The next requests of the clients -----------------------------------------------------------------------------


@asynccontextmanager
async def served_in_a_turn(count: int) -> AsyncIterator[tuple[Store, Shared]]:
    """A store that has just answered so many clients in a turn. All that is sent must be answered in the end."""
    space = Shared()
    store = Store(memory_of(space), Limits())
    await store.open()
    send(store, count)
    await asked(space, 1)
    space.ready[0]()
    assert space.sizes == [count]
    await settle()
    yield store, space
    await store.close()
    assert len(store._lane) == 0


def send(store: Store, count: int) -> None:
    for operation in puts(count):
        store.submit(operation, lambda _: None)


def test_a_batch_needs_no_turn_if_all_clients_of_the_last_one_have_sent_their_next_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane, "WAIT_SECONDS", SECONDS)

    async def scenario() -> None:
        async with served_in_a_turn(LEAST_OPERATIONS) as (store, space):
            store._lane._next_requests._next_pause = MOST_PAUSE
            for _ in range(3):
                before = len(space.sizes)
                for _ in range(LEAST_OPERATIONS - 1):
                    send(store, 1)
                    await settle()
                assert len(space.sizes) == before
                send(store, 1)
                await settle()
            assert space.sizes == [LEAST_OPERATIONS] * 4
            assert len(space.ready) == 1
            assert store._lane._next_requests._next_pause == LEAST_PAUSE
            # The clients do not come again: the end does not wait for the limit.
            monkeypatch.setattr(lane, "WAIT_SECONDS", 0.0)
            send(store, LEAST_OPERATIONS)
            await settle()

    asyncio.run(scenario())


def test_those_who_wait_already_are_expected_beside_those_who_were_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "WAIT_SECONDS", SECONDS)

    async def scenario() -> None:
        async with served_in_a_turn(1) as (store, space):
            send(store, 4)
            # Others come before the batch has ended.
            store.submit(Put("key", b"1"), lambda _: send(store, LEAST_OPERATIONS - 5))
            await asked(space, 2)
            space.ready[1]()
            send(store, 4)
            await settle()
            assert space.sizes == [1, 5]
            monkeypatch.setattr(lane, "WAIT_SECONDS", 0.0)
            send(store, 1)
            await settle()
            assert space.sizes == [1, 5, LEAST_OPERATIONS]

    asyncio.run(scenario())


def test_the_lane_asks_for_a_turn_if_the_clients_send_nothing_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "WAIT_SECONDS", 0.0)

    async def scenario() -> None:
        async with served_in_a_turn(LEAST_OPERATIONS) as (store, space):
            send(store, 2)
            await asked(space, 2)
            space.ready[1]()
            assert space.sizes == [LEAST_OPERATIONS, 2]

    asyncio.run(scenario())


def test_after_a_wait_in_vain_the_next_batches_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "WAIT_SECONDS", 0.0)

    async def scenario() -> None:
        async with served_in_a_turn(LEAST_OPERATIONS) as (store, space):
            await settle()
            monkeypatch.setattr(lane, "WAIT_SECONDS", SECONDS)
            for number in range(LEAST_PAUSE):
                send(store, LEAST_OPERATIONS)
                await asked(space, 2 + number)
                space.ready[-1]()
            send(store, 1)
            await asked(space, 2 + LEAST_PAUSE)
            space.ready[-1]()

    asyncio.run(scenario())


def test_a_small_batch_is_not_followed_by_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "WAIT_SECONDS", SECONDS)

    async def scenario() -> None:
        async with served_in_a_turn(LEAST_OPERATIONS - 1) as (store, space):
            send(store, 1)
            await asked(space, 2)
            space.ready[1]()

    asyncio.run(scenario())


def test_a_lone_server_does_not_wait_for_its_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "WAIT_SECONDS", SECONDS)
    assert sizes([puts(64), [], [], [], [], puts(1)]) == [64, 1]
