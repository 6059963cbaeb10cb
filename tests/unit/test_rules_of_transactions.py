"""Transactions: checks, all or nothing, one revision, refusals with their place, and a bounded amount of work."""

from typing import Any

import msgspec
import pytest
from driving import stored_state

from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.limits import MAX_BATCH_WORK_BYTES, MAX_PARTS_BYTES, MIB
from leasehold.model import (
    Acquire,
    Change,
    Check,
    Committed,
    Delete,
    Deleted,
    Deletion,
    Entry,
    EntryOperation,
    ExistenceCheck,
    Found,
    JsonPatch,
    Lease,
    LeaseCheck,
    MergePatch,
    Missing,
    Operation,
    Outcome,
    PatchStep,
    Put,
    Read,
    Release,
    RevisionCheck,
    Transaction,
    ValueCheck,
    Written,
)
from leasehold.rules import evaluate, touched

HEAD = 100
NOW = 1_000_000_000
ALICE = Entry("alice", b'{"n":1,"on":true}', 41, 10, 20)
BOB = Entry("bob", b"[1,2]", 42, 10, 20)
GONE = Entry("gone", b'"old"', 43, 10, 20, expires_at=NOW)
"""It has just expired and is still stored."""
ALIVE = Lease("l", "alive", 50, 50, 1, NOW + 1, 1, "ann", b"null")
ENDED = Lease("m", "ended", 51, 51, 1, NOW, 1, "ann", b"null")


def decide(
    *operations: Operation, entries: tuple[Entry, ...] = (ALICE, BOB, GONE), max_value_bytes: int = MIB
) -> tuple[list[Outcome | ServiceError], list[Change]]:
    state = stored_state({entry.key: entry for entry in entries}, HEAD, leases={"l": ALIVE, "m": ENDED})
    return evaluate(operations, State(state), HEAD, NOW, max_value_bytes=max_value_bytes)


def transaction(*operations: EntryOperation | Read, checks: tuple[Check, ...] = (), **options: Any) -> Transaction:
    return Transaction(checks, operations or (Put("new", b"1"),), **options)


def committed(*operations: EntryOperation | Read, checks: tuple[Check, ...] = ()) -> Committed:
    [outcome], changes = decide(transaction(*operations, checks=checks))
    assert isinstance(outcome, Committed), outcome
    assert {change.revision for change in changes} <= {outcome.revision}
    return outcome


def refusal(asked: Transaction, **options: Any) -> ServiceError:
    """The error of a transaction, which has changed nothing."""
    [outcome, after], changes = decide(asked, Put("after", b"1"), **options)
    assert isinstance(outcome, ServiceError)
    assert isinstance(after, Written)
    assert changes == [after.entry]
    assert after.entry.revision == HEAD + 1, "a refused transaction takes no revision"
    return outcome


def failed(*checks: Check, **options: Any) -> Any:
    error = refusal(transaction(checks=checks, **options))
    assert (error.code, error.status) == ("precondition_failed", 412)
    return error.details["failed"]


# One revision -------------------------------------------------------------------------------------------------


def test_all_changes_have_the_same_revision_and_the_next_operation_the_next_one() -> None:
    asked = transaction(Put("a", b"1"), Delete("bob"), MergePatch("alice", {"n": 2}), Put("b", b"2"))
    [outcome, after], changes = decide(asked, Put("c", b"3"))
    assert isinstance(outcome, Committed)
    assert outcome.revision == HEAD + 1
    assert sorted((change.name, change.revision) for change in changes) == [
        ("a", HEAD + 1),
        ("alice", HEAD + 1),
        ("b", HEAD + 1),
        ("bob", HEAD + 1),
        ("c", HEAD + 2),
    ]
    assert changes[-1].revision == HEAD + 2
    assert isinstance(after, Written)


def test_the_results_are_those_of_the_operations_in_their_order() -> None:
    outcome = committed(
        Put("a", b"1", ttl=5),
        Put("alice", b"2", ("n",)),
        Delete("bob"),
        Read("alice"),
        Read("bob"),
        Read("gone"),
    )
    put, part, deleted, *reads = outcome.results
    assert put == Written(Entry("a", b"1", HEAD + 1, NOW, NOW, NOW + 5), created=True)
    alice = Entry("alice", b'{"n":2,"on":true}', HEAD + 1, 10, NOW)
    assert part == Written(alice, created=False, path=("n",)), "the caller has sent the part"
    assert deleted == Deleted("bob", HEAD + 1)
    assert reads == [Found(alice), Missing("bob"), Missing("gone")]


def test_reads_alone_change_nothing_and_have_the_head_that_they_saw() -> None:
    outcome = committed(Read("alice"), Read("nothing"))
    assert outcome == Committed(HEAD, (Found(ALICE), Missing("nothing")))
    [_, read], changes = decide(Put("alice", b"7"), transaction(Read("alice")))
    assert isinstance(read, Committed)
    assert read.revision == HEAD + 1
    assert read.results == (Found(Entry("alice", b"7", HEAD + 1, 10, NOW)),)
    assert len(changes) == 1


def test_a_key_that_the_batch_had_changed_keeps_its_last_state() -> None:
    outcomes, changes = decide(Put("a", b"1"), Put("b", b"1"), transaction(Put("a", b"2"), Put("c", b"2")))
    assert [(change.name, change.revision) for change in changes] == [
        ("b", HEAD + 2),
        ("a", HEAD + 3),
        ("c", HEAD + 3),
    ]
    assert isinstance(outcomes[2], Committed)


# All or nothing -----------------------------------------------------------------------------------------------

REFUSED: list[tuple[EntryOperation | Read, str, int]] = [
    (Delete("nothing"), "not_found", 404),
    (MergePatch("gone", {}), "not_found", 404),
    (Put("alice", b"1", ("n", "x")), "conflict", 409),
    (Put("bob", b"1", ("7",)), "path_not_found", 404),
    (JsonPatch("bob", (PatchStep("test", ("0",), 2),)), "patch_failed", 422),
    (Put("large", b'"%b"' % (b"x" * MIB)), "too_large", 413),
]


@pytest.mark.parametrize(("operation", "code", "status"), REFUSED)
@pytest.mark.parametrize("index", [0, 2])
def test_a_refused_operation_changes_nothing_and_tells_its_index(
    operation: EntryOperation, code: str, status: int, index: int
) -> None:
    operations: list[EntryOperation | Read] = [Put("a", b"1"), Delete("alice" if operation.key == "bob" else "bob")]
    operations.insert(index, operation)
    error = refusal(transaction(*operations))
    assert (error.code, error.status) == (code, status)
    assert (error.details["index"], error.details["key"]) == (index, operation.key)


def test_an_unexpected_exception_inside_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("leasehold.rules.entries.change", fail)
    error = refusal(transaction(Put("a", b"1"), Delete("bob")))
    assert error.code == "internal"
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_a_value_that_cannot_be_read_refuses_a_read_of_it() -> None:
    error = refusal(transaction(Read("bad")), entries=(Entry("bad", b"", 1, 1, 1),))
    assert (error.code, error.details["key"]) == ("internal", "bad")


# Checks -------------------------------------------------------------------------------------------------------

HOLDING: list[Check] = [
    RevisionCheck("alice", 41),
    RevisionCheck("nothing", None),
    RevisionCheck("gone", None),
    ExistenceCheck("bob"),
    ValueCheck("alice", ("n",), 1),
    ValueCheck("alice", ("n",), 1.0),
    ValueCheck("alice", (), {"on": True, "n": 1}),
    ValueCheck("bob", ("1",), 2),
    LeaseCheck("alive"),
]
FAILING: list[tuple[Check, dict[str, object]]] = [
    (RevisionCheck("alice", 40), {"key": "alice", "revision": 41}),
    (RevisionCheck("alice", None), {"key": "alice", "revision": 41}),
    (RevisionCheck("nothing", 1), {"key": "nothing", "revision": None}),
    (RevisionCheck("gone", 43), {"key": "gone", "revision": None}),
    (ExistenceCheck("nothing"), {"key": "nothing", "revision": None}),
    (ValueCheck("alice", ("on",), 1), {"key": "alice", "revision": 41}),
    (ValueCheck("alice", ("absent",), None), {"key": "alice", "revision": 41}),
    (ValueCheck("bob", ("7",), 1), {"key": "bob", "revision": 42}),
    (ValueCheck("nothing", (), None), {"key": "nothing", "revision": None}),
    (LeaseCheck("ended"), {"error": "lease_lost"}),
    (LeaseCheck("unknown"), {"error": "lease_lost"}),
]


@pytest.mark.parametrize("check", HOLDING, ids=repr)
def test_a_transaction_whose_check_holds_is_done(check: Check) -> None:
    assert committed(Put("alice", b"9"), checks=(check,)).revision == HEAD + 1


@pytest.mark.parametrize(("check", "told"), FAILING, ids=repr)
def test_a_transaction_whose_check_fails_changes_nothing(check: Check, told: dict[str, object]) -> None:
    assert failed(check) == [{"index": 0, **told}]


def test_all_failed_checks_are_listed() -> None:
    checks = [check for check, _ in FAILING]
    mixed = [each for pair in zip(HOLDING, checks, strict=False) for each in pair]
    assert [each["index"] for each in failed(*mixed)] == list(range(1, 2 * len(HOLDING), 2))


def test_checks_see_the_state_before_the_operations_and_after_the_batch_so_far() -> None:
    asked = transaction(Put("a", b"2"), checks=(ValueCheck("a", (), 1), RevisionCheck("bob", None)))
    outcomes, _ = decide(Put("a", b"1"), Delete("bob"), asked)
    assert isinstance(outcomes[-1], Committed)


def test_a_lease_that_the_batch_has_acquired_or_released_counts() -> None:
    check = transaction(checks=(LeaseCheck("fresh"),))
    before, acquired, after, released, late = decide(
        check, Acquire("free", "fresh", 10), check, Release("free", "fresh"), check
    )[0]
    assert [type(each) for each in (before, after, late)] == [ServiceError, Committed, ServiceError]
    assert not isinstance(acquired, ServiceError)
    assert not isinstance(released, ServiceError)


def test_if_lease_refuses_before_the_checks() -> None:
    error = refusal(transaction(checks=(ExistenceCheck("nothing"),), lease_id="ended"))
    assert (error.code, error.status) == ("lease_lost", 412)
    assert isinstance(decide(transaction(lease_id="alive"))[0][0], Committed)


def test_the_current_entries_are_shown_if_they_are_wanted() -> None:
    told = failed(RevisionCheck("alice", 1), RevisionCheck("nothing", 1), LeaseCheck("x"), shows_current=True)
    alice, nothing, lease = msgspec.json.decode(msgspec.json.encode(told))
    assert (alice["current"]["key"], alice["current"]["value"]) == ("alice", {"n": 1, "on": True})
    assert (nothing["current"], "current" in lease) == (None, False)


def test_current_values_beyond_the_limit_are_left_out() -> None:
    entries = tuple(Entry(f"k{number}", b'"%b"' % (b"x" * (MIB - 10)), 1, 1, 1) for number in range(5))
    checks = tuple(RevisionCheck(entry.key, 2) for entry in entries)
    error = refusal(transaction(checks=checks, shows_current=True), entries=entries)
    told = msgspec.json.decode(msgspec.json.encode(error.details["failed"]))
    assert ["value" in each["current"] for each in told] == [True, True, False, False, False]
    assert all(each["current"]["revision"] == 1 for each in told)


# Records that it reads ----------------------------------------------------------------------------------------


def test_the_records_of_all_checks_and_operations_are_loaded() -> None:
    asked = transaction(
        Put("a", b"1"),
        Read("b"),
        checks=(RevisionCheck("c", 1), ExistenceCheck("d"), ValueCheck("e", (), 1), LeaseCheck("x")),
        lease_id="y",
    )
    names = touched([asked, Put("f", b"1")])
    assert {kind.name: sorted(each) for kind, each in names.names.items()} == {"entry": list("abcdef")}
    assert {kind.name: sorted(each) for kind, each in names.lookups.items()} == {"lease": ["x", "y"]}


# Work ---------------------------------------------------------------------------------------------------------


def large(size: int, *keys: str) -> tuple[Entry, ...]:
    return tuple(Entry(key, b'{"x":"%b"}' % (b"x" * size), 1, 1, 1) for key in keys)


UPDATES: list[EntryOperation | ValueCheck] = [
    MergePatch("b", {"y": 1}),
    Put("b", b"1", ("y",)),
    JsonPatch("b", (PatchStep("add", ("y",), 1),)),
    ValueCheck("b", ("x",), "y"),
]


@pytest.mark.parametrize("update", UPDATES)
def test_partial_updates_beyond_the_limit_of_a_batch_are_refused_together(update: Any) -> None:
    entries = large(MAX_BATCH_WORK_BYTES * 2 // 3, "a", "b")
    checks = (update, ValueCheck("a", ("x",), "y")) if isinstance(update, ValueCheck) else ()
    operations = () if checks else (MergePatch("a", {"y": 1}), update)
    error = refusal(transaction(*operations, checks=checks), entries=entries)
    assert (error.code, error.details["limit"]) == ("too_large", MAX_BATCH_WORK_BYTES)


def test_one_partial_update_may_be_of_the_largest_value() -> None:
    entries = large(2 * MAX_BATCH_WORK_BYTES, "a")
    [outcome], _ = decide(
        transaction(Put("c", b"1"), MergePatch("a", {"y": 1}), Put("b", b"1")),
        entries=entries,
        max_value_bytes=4 * MAX_BATCH_WORK_BYTES,
    )
    assert isinstance(outcome, Committed)


def test_a_value_is_decoded_once_for_all_checks_of_it() -> None:
    checks = tuple(ValueCheck("a", ("x",), f"{number}") for number in range(100))
    error = refusal(transaction(checks=checks), entries=large(MAX_BATCH_WORK_BYTES - 100_000, "a"))
    assert error.code == "precondition_failed"


def test_a_transaction_that_does_not_fit_into_the_rest_of_a_batch_is_left_for_the_next_one() -> None:
    entries = large(MAX_BATCH_WORK_BYTES // 3, "a", "b", "c", "d")
    asked = transaction(Put("new", b"1"), MergePatch("b", {"y": 1}), MergePatch("c", {"y": 1}))
    outcomes, changes = decide(MergePatch("a", {"y": 1}), asked, Put("late", b"1"), entries=entries)
    assert (len(outcomes), [change.name for change in changes]) == (1, ["a"])
    [again], changes = decide(asked, entries=entries)
    assert isinstance(again, Committed)
    assert sorted(change.name for change in changes) == ["b", "c", "new"]


def test_a_batch_takes_a_bounded_number_of_operations_in_transactions() -> None:
    operations = tuple(Put(f"k{number}", b"1") for number in range(128))
    outcomes, _ = decide(*[transaction(*operations)] * 1_000)
    assert 50 <= len(outcomes) <= 100
    assert all(isinstance(outcome, Committed) for outcome in outcomes)


def test_values_that_are_read_are_bounded_in_total_but_one_may_be_larger() -> None:
    entries = tuple(Entry(key, b'"%b"' % (b"x" * MAX_PARTS_BYTES), 1, 1, 1) for key in "ab")
    [outcome], _ = decide(transaction(Read("a"), Put("b", b"1")), entries=entries)
    assert isinstance(outcome, Committed)
    error = refusal(transaction(Read("a"), Put("c", b"1"), Read("b")), entries=entries)
    assert (error.code, error.details["limit"], error.details["index"]) == ("too_large", MAX_PARTS_BYTES, 2)


def test_deletions_in_a_transaction_are_changes_of_its_revision() -> None:
    [outcome], changes = decide(transaction(Delete("alice"), Delete("bob")))
    assert isinstance(outcome, Committed)
    assert changes == [Deletion("alice", HEAD + 1), Deletion("bob", HEAD + 1)]
