"""Quotas: no change takes a namespace beyond them; what makes nothing larger is always done."""

from typing import Any

import pytest
from driving import stored_state
from hypothesis import given, settings
from hypothesis import strategies as st

from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.limits import MAX_STATE_VERSIONS
from leasehold.model import (
    ENTRY,
    Acquire,
    Binary,
    Change,
    Content,
    Delete,
    DeleteEach,
    Deletion,
    Entry,
    Forget,
    Increment,
    Keyed,
    Leased,
    MergePatch,
    Operation,
    Outcome,
    Put,
    Quota,
    Renew,
    RevisionCheck,
    SaveState,
    Transaction,
    Usage,
)
from leasehold.rules import evaluate
from leasehold.rules.terraform import versions_key

HEAD = 10
NOW = 100
ONE = Entry("one", b"111", 1, 10, 10)
TWO = Entry("two", b"222", 2, 10, 10)
GONE = Entry("gone", b"0", 3, 10, 10, expires_at=NOW)
"""It has expired, and was not removed yet."""


class Space:
    """A space with a quota, whose batches are decided and published one after the other."""

    def __init__(self, *entries: Entry, max_entries: int | None = None, max_bytes: int | None = None) -> None:
        self.state = State(stored_state({entry.key: entry for entry in entries}, HEAD))
        self.state.quota = Quota(max_entries, max_bytes)
        self.changes: list[Change] = []

    def decide(self, *operations: Operation) -> list[Outcome | ServiceError]:
        outcomes, self.changes = evaluate(operations, self.state, self.state.revision, NOW, max_value_bytes=1_000)
        if self.changes:
            by_kind: dict[Any, list[Change]] = {}
            for change in self.changes:
                kind = next(kind for kind in self.state._tables if isinstance(change, (kind.record, kind.removal)))
                by_kind.setdefault(kind, []).append(change)
            self.state.publish(by_kind, max(change.revision for change in self.changes))
        return outcomes

    def names(self, *operations: Operation) -> list[str]:
        """The outcome of each operation: the name of its class, or the code of its refusal."""
        return [
            outcome.code if isinstance(outcome, ServiceError) else type(outcome).__name__
            for outcome in self.decide(*operations)
        ]


def usage_of(state: State) -> Usage:
    """What is really there."""
    entries = state.records(ENTRY).values()
    return Usage(len(entries), sum(len(entry.key.encode()) + len(entry.value) for entry in entries))


def test_an_entry_more_than_the_quota_is_refused_and_the_limit_is_named() -> None:
    space = Space(ONE, TWO, max_entries=2)
    [refused] = space.decide(Put("three", b"3"))
    assert isinstance(refused, ServiceError)
    assert (refused.code, refused.status, refused.details) == ("quota_exceeded", 507, {"limit": 2})
    assert space.changes == []


def test_the_last_entry_and_the_last_byte_within_the_quota_are_written() -> None:
    assert Space(ONE, max_entries=2).names(Put("two", b"2")) == ["Written"]
    assert Space(ONE, max_bytes=6 + 4).names(Put("two", b"2")) == ["Written"]
    assert Space(ONE, max_bytes=6 + 3).names(Put("two", b"2")) == ["quota_exceeded"]


def test_bytes_are_those_of_keys_in_utf_8_and_of_values() -> None:
    assert Space(max_bytes=3).names(Put("é", b"1")) == ["Written"]
    assert Space(max_bytes=2).names(Put("é", b"1")) == ["quota_exceeded"]
    bytes_of_an_image = Binary("image/png", Content(b"123"))
    assert Space(max_bytes=4).names(Put("k", bytes_of_an_image)) == ["Written"]
    assert Space(max_bytes=3).names(Put("k", bytes_of_an_image)) == ["quota_exceeded"]


def test_each_operation_of_a_batch_counts_on_what_those_before_it_have_left() -> None:
    space = Space(ONE, TWO, max_entries=3)
    assert space.names(Put("a", b"1"), Put("b", b"1"), Delete("one"), Put("b", b"1"), Put("c", b"1")) == [
        "Written",
        "quota_exceeded",
        "Deleted",
        "Written",
        "quota_exceeded",
    ]
    assert [change.revision for change in space.changes] == [HEAD + 1, HEAD + 2, HEAD + 3], "a refusal takes none"


def test_a_batch_of_plain_puts_is_refused_from_the_first_one_that_does_not_fit() -> None:
    space = Space(ONE, max_entries=2)
    assert space.names(Put("a", b"1"), Put("a", b"2"), Put("b", b"1"), Put("one", b"9")) == [
        "Written",
        "Written",
        "quota_exceeded",
        "Written",
    ]


def test_what_makes_nothing_larger_is_done_beyond_the_quota() -> None:
    def space() -> Space:
        return Space(ONE, TWO, max_entries=1, max_bytes=1)

    assert space().names(Put("one", b"1"), Put("one", b"2")) == ["Written", "Written"]
    assert space().names(Put("one", b"1111")) == ["quota_exceeded"]
    assert space().names(Delete("one"), Delete("two")) == ["Deleted", "Deleted"]
    assert space().names(DeleteEach(("one", "two"), 0, 0)) == ["DeletedEntries"]
    assert space().names(Increment("one", 1, ()), Increment("one", 1_000, ())) == ["Written", "quota_exceeded"]


def test_locks_and_receipts_do_not_count() -> None:
    space = Space(max_entries=0, max_bytes=0)
    [leased] = space.decide(Acquire("lock", "lease", 5_000_000, b'"owner"'))
    assert isinstance(leased, Leased)
    assert space.names(Renew("lock", "lease", 5_000_000)) == ["Leased"]


def test_an_expired_entry_counts_until_it_is_removed() -> None:
    space = Space(GONE, max_entries=1)
    assert space.names(Put("new", b"1")) == ["quota_exceeded"]
    assert space.names(Put("gone", b"1")) == ["Written"], "it takes the place of the expired one"


def test_a_precondition_is_checked_before_the_quota() -> None:
    space = Space(ONE, max_entries=1)
    transaction = Transaction((RevisionCheck("one", 99),), (Put("two", b"1"),))
    assert space.names(transaction) == ["precondition_failed"]


def test_a_transaction_counts_as_a_whole() -> None:
    space = Space(ONE, TWO, max_entries=2)
    swap = Transaction((), (Put("three", b"1"), Delete("one")))
    assert space.names(swap) == ["Committed"], "it needs no room for a moment only"
    assert usage_of(space.state).entries == 2


def test_a_transaction_beyond_the_quota_changes_nothing() -> None:
    space = Space(ONE, TWO, max_entries=3)
    several = Transaction((), (Put("one", b"9"), Put("a", b"1"), Put("b", b"1")))
    assert space.names(several, Put("c", b"1")) == ["quota_exceeded", "Written"]
    assert [change.name for change in space.changes] == ["c"]
    assert space.state.records(ENTRY)["one"] == ONE


def test_a_request_with_an_idempotency_key_that_was_refused_is_decided_again() -> None:
    space = Space(ONE, max_entries=1)
    keyed = Keyed(Put("a", b"1"), "receipt", b"12345678", 5_000_000)
    assert space.names(keyed) == ["quota_exceeded"]
    assert space.names(Delete("one"), keyed, keyed) == ["Deleted", "Written", "Replayed"]


def test_a_patch_that_makes_a_value_larger_is_refused() -> None:
    space = Space(Entry("one", b"{}", 1, 10, 10), max_bytes=10)
    assert (
        space.names(MergePatch("one", {"a": "long enough"}), MergePatch("one", {"a": 1}))
        == [
            "quota_exceeded",
            "Written",
        ]
        or usage_of(space.state).bytes <= 10
    )


def test_the_versions_of_a_state_count_and_the_oldest_one_makes_room() -> None:
    space = Space(max_entries=MAX_STATE_VERSIONS + 1)
    key = "terraform/a"
    for number in range(2 * MAX_STATE_VERSIONS):
        state = Binary("application/json", Content(b"%03d" % number))
        assert space.names(SaveState(key, state, None)) == ["Written"]
    assert space.state.usage == usage_of(space.state)
    assert space.state.usage.entries == MAX_STATE_VERSIONS + 1
    assert versions_key(key) in space.state.records(ENTRY)


# Against a model ------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "c", "d", "é"])
VALUES = st.sampled_from([b"1", b"22", b"4444", b'"8 bytes"'])
PUTS = st.builds(Put, KEYS, VALUES)
SINGLE = PUTS | PUTS | st.builds(Delete, KEYS) | st.builds(Increment, KEYS, st.sampled_from([1, 10**9]), st.just(()))
TRANSACTIONS = st.lists(SINGLE, min_size=1, max_size=3, unique_by=lambda operation: operation.key).map(
    lambda operations: Transaction((), tuple(operations))
)
KEYED = st.builds(Keyed, SINGLE, st.sampled_from(["r1", "r2"]), st.just(b"12345678"), st.just(1_000_000))
OPERATIONS = (
    SINGLE
    | TRANSACTIONS
    | KEYED
    | st.builds(DeleteEach, st.lists(KEYS, max_size=3, unique=True).map(tuple), st.just(0), st.just(0))
)
LIMITS = st.none() | st.integers(0, 6)


@settings(deadline=None, max_examples=400)
@given(st.lists(st.lists(OPERATIONS, max_size=5), max_size=6), LIMITS, st.none() | st.integers(0, 30))
def test_no_batch_exceeds_the_quota_and_usage_is_exact(
    batches: list[list[Operation]], max_entries: int | None, max_bytes: int | None
) -> None:
    space = Space(max_entries=max_entries, max_bytes=max_bytes)
    free = Space()
    free.state.quota = None
    for operations in batches:
        if not operations:
            continue
        outcomes = space.decide(*operations)
        usage = usage_of(space.state)
        assert space.state.usage == usage
        assert max_entries is None or usage.entries <= max_entries
        assert max_bytes is None or usage.bytes <= max_bytes
        assert all(isinstance(change, (Entry, Deletion)) or change.revision > HEAD for change in space.changes)
        refused = [outcome for outcome in outcomes if isinstance(outcome, ServiceError)]
        if max_entries is None and max_bytes is None:
            assert all(error.code != "quota_exceeded" for error in refused)
            assert list(map(_shown, outcomes)) == list(map(_shown, free.decide(*operations)))


def _shown(outcome: Outcome | ServiceError) -> object:
    return outcome.code if isinstance(outcome, ServiceError) else outcome


@pytest.mark.parametrize("operation", [Forget(("absent",), 5), DeleteEach((), 0, 0)])
def test_an_operation_without_changes_is_done_beyond_the_quota(operation: Operation) -> None:
    [outcome] = Space(ONE, max_entries=0).decide(operation)
    assert not isinstance(outcome, ServiceError)
