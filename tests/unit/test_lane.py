"""The write lane: which operations become one batch."""

import asyncio
from collections.abc import Sequence

import pytest
from driving import memory_of

from leasehold.engines.base import CommitDone, Decide
from leasehold.engines.memory.space import MemorySpace
from leasehold.errors import ServiceError
from leasehold.limits import MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MIB, Limits
from leasehold.model import Delete, Operation, Outcome, Put, Touched, Written
from leasehold.store.lane import ENOUGH_OPERATIONS
from leasehold.store.store import Store


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
