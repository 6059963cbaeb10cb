"""Increments: exact integers, missing parts count as 0, and what is not a number is refused. Writes that keep a ttl."""

from typing import Any

import pytest
from driving import json_text, stored_state

from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.limits import MAX_INTEGER, MIB, MIN_INTEGER
from leasehold.model import (
    Condition,
    Delete,
    Entry,
    EntryOperation,
    Increment,
    JsonPatch,
    MergePatch,
    Operation,
    Pointer,
    Put,
    Transaction,
    Written,
)
from leasehold.rules import evaluate

HEAD = 10
NOW = 1_000_000


def outcome_of(operation: EntryOperation | Transaction, *entries: Entry, max_value_bytes: int = MIB) -> Any:
    state = State(stored_state({entry.key: entry for entry in entries}, HEAD))
    [outcome], changes = evaluate([operation], state, HEAD, NOW, max_value_bytes=max_value_bytes)
    assert bool(changes) != isinstance(outcome, ServiceError)
    return outcome


def entry_of(value: bytes, *, expires_at: int | None = None) -> Entry:
    return Entry("a", value, 5, 1, 1, expires_at)


def sums(value: bytes | None, path: Pointer, amount: float) -> tuple[bytes, bytes | None]:
    """The value afterwards, and the part that is told."""
    outcome = outcome_of(Increment("a", amount, path), *([] if value is None else [entry_of(value)]))
    assert isinstance(outcome, Written), outcome
    assert outcome.path == (path or None)
    assert outcome.created == (value is None)
    return json_text(outcome.entry.value), outcome.part


@pytest.mark.parametrize(
    ("value", "path", "amount", "after", "part"),
    [
        (b"41", (), 1, b"42", b"42"),
        (b'{"n":41}', ("n",), 1, b'{"n":42}', b"42"),
        (b'{"n":1}', ("n",), -3, b'{"n":-2}', b"-2"),
        (b'{"m":1}', ("n",), 5, b'{"m":1,"n":5}', b"5"),
        (b"{}", ("a", "b"), 5, b'{"a":{"b":5}}', b"5"),
        (b"[1,2]", ("1",), 5, b"[1,7]", b"7"),
        (b"[1]", ("-",), 5, b"[1,5]", b"5"),
        (None, (), 7, b"7", b"7"),
        (None, ("n",), 7, b'{"n":7}', b"7"),
        (None, ("-",), 7, b"[7]", b"7"),
        (b"9007199254740993", (), 1, b"9007199254740994", b"9007199254740994"),
        (b"%d" % (MAX_INTEGER - 1), (), 1, b"%d" % MAX_INTEGER, b"%d" % MAX_INTEGER),
        (b"%d" % (MIN_INTEGER + 1), (), -1, b"%d" % MIN_INTEGER, b"%d" % MIN_INTEGER),
        (b"%d" % MAX_INTEGER, (), -MAX_INTEGER, b"0", b"0"),
        (b"1", (), 0.5, b"1.5", b"1.5"),
        (b"1.5", (), 1, b"2.5", b"2.5"),
        (b"1.5", (), 0.5, b"2.0", b"2.0"),
    ],
)
def test_a_number_is_added(value: bytes | None, path: Pointer, amount: float, after: bytes, part: bytes) -> None:
    assert sums(value, path, amount) == (after, part)


@pytest.mark.parametrize(
    ("value", "path", "amount", "code"),
    [
        (b'"1"', (), 1, "conflict"),
        (b"null", (), 1, "conflict"),
        (b"true", (), 1, "conflict"),
        (b'{"n":"1"}', ("n",), 1, "conflict"),
        (b'{"n":{}}', ("n",), 1, "conflict"),
        (b'{"n":1}', ("n", "m"), 1, "conflict"),
        (b"{}", (), 1, "conflict"),
        (b"[1]", ("name",), 1, "conflict"),
        (b"[1]", ("1",), 1, "path_not_found"),
        (b"%d" % MAX_INTEGER, (), 1, "conflict"),
        (b"%d" % MIN_INTEGER, (), -1, "conflict"),
        (b"1e308", (), 1e308, "conflict"),
        (b"-1e308", (), -1e308, "conflict"),
    ],
)
def test_what_cannot_be_added_is_refused(value: bytes, path: Pointer, amount: float, code: str) -> None:
    outcome = outcome_of(Increment("a", amount, path), entry_of(value))
    assert isinstance(outcome, ServiceError)
    assert outcome.code == code


def test_a_sum_that_makes_the_value_too_large_is_refused() -> None:
    outcome = outcome_of(Increment("a", 1, ("n",)), entry_of(b'{"n":9}'), max_value_bytes=7)
    assert isinstance(outcome, ServiceError)
    assert outcome.code == "too_large"


def test_conditions_and_leases_are_checked_before() -> None:
    refused = [
        outcome_of(Increment("a", 1, condition=Condition(if_match=(4,))), entry_of(b"1")),
        outcome_of(Increment("a", 1, condition=Condition(if_match="*"))),
        outcome_of(Increment("a", 1, lease_id="unknown"), entry_of(b'"text"')),
    ]
    assert [refusal.code for refusal in refused] == ["precondition_failed", "precondition_failed", "lease_lost"]


def test_an_expired_number_counts_as_missing() -> None:
    outcome = outcome_of(Increment("a", 1), entry_of(b"41", expires_at=NOW))
    assert (outcome.entry.value, outcome.created) == (b"1", True)


def test_increments_in_one_batch_and_in_one_transaction_add_up() -> None:
    state = State(stored_state({"a": entry_of(b"1")}, HEAD))
    operations: list[Operation] = [
        Increment("a", 1),
        Transaction((), (Increment("a", 2), Put("b", b'{"n":1}', ("m",)))),
        Increment("a", 4),
    ]
    outcomes, changes = evaluate(operations, state, HEAD, NOW, max_value_bytes=MIB)
    values = {change.name: change.value for change in changes if isinstance(change, Entry)}
    assert values == {"a": b"8", "b": b'{"m":{"n":1}}'}
    results = getattr(outcomes[1], "results", ())
    assert [result.part for result in results] == [b"4", None]


# ttl=keep -----------------------------------------------------------------------------------------------------

WRITES: list[EntryOperation] = [
    Put("a", b"1", ttl="keep"),
    Put("a", b"1", ("n",), ttl="keep"),
    MergePatch("a", {"m": 1}, ttl="keep"),
    JsonPatch("a", (), ttl="keep"),
    Delete("a", ("n",), ttl="keep"),
    Increment("a", 1, ("n",), ttl="keep"),
]


@pytest.mark.parametrize("write", WRITES, ids=lambda write: type(write).__name__)
@pytest.mark.parametrize("expires_at", [None, NOW + 5])
def test_a_write_can_keep_the_expiry_that_the_entry_has(write: EntryOperation, expires_at: int | None) -> None:
    outcome = outcome_of(write, entry_of(b'{"n":1}', expires_at=expires_at))
    assert isinstance(outcome, Written)
    assert outcome.entry.expires_at == expires_at


@pytest.mark.parametrize("expires_at", [None, NOW])
def test_a_new_entry_that_keeps_its_expiry_has_none(expires_at: int | None) -> None:
    before = [] if expires_at is None else [entry_of(b"1", expires_at=expires_at)]
    outcome = outcome_of(Put("a", b"1", ttl="keep"), *before)
    assert (outcome.created, outcome.entry.expires_at) == (True, None)
