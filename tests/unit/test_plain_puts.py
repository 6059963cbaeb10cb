"""A batch of plain puts is decided as by the general rule, and every other batch by the general rule alone."""

import pytest
from driving import stored_state
from hypothesis import given, settings
from hypothesis import strategies as st

from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.model import Acquire, Change, Condition, Delete, Entry, Operation, Outcome, Put, Written
from leasehold.rules import evaluate, plain_puts
from leasehold.rules.batch import apply
from leasehold.rules.overlay import Overlay

HEAD = 20
NOW = 100
MAX_VALUE_BYTES = 8

KEYS = st.sampled_from(["a", "b", "c", "d", "e"])
STORED = st.dictionaries(
    KEYS,
    st.tuples(st.integers(1, HEAD), st.integers(1, NOW), st.none() | st.integers(NOW - 2, NOW + 2)),
)
"""Revision, time and expiry. Entries that expire at NOW or before it are stored, but do not exist any more."""
PLAIN = st.lists(st.builds(Put, KEYS, st.sampled_from([b"1", b'"value"', b"12345678"])), max_size=12)


def state_of(stored: dict[str, tuple[int, int, int | None]]) -> State:
    return State(stored_state({key: Entry(key, b"0", at, time, time, end) for key, (at, time, end) in stored.items()}))


def decided_one_by_one(operations: list[Operation], state: State) -> tuple[list[Outcome | ServiceError], list[Change]]:
    """What the general rule decides."""
    overlay = Overlay(state, HEAD, NOW, MAX_VALUE_BYTES)
    return [apply(overlay, operation) for operation in operations], overlay.changes()


@settings(deadline=None, max_examples=500)
@given(STORED, PLAIN)
def test_plain_puts_have_the_outcomes_and_changes_of_the_general_rule(
    stored: dict[str, tuple[int, int, int | None]], operations: list[Operation]
) -> None:
    state = state_of(stored)
    together = plain_puts.put_all(operations, state, HEAD, NOW, max_value_bytes=MAX_VALUE_BYTES)
    assert together == decided_one_by_one(operations, state)


def test_an_entry_that_is_replaced_keeps_the_string_object_of_its_key() -> None:
    stored, sent = (bytes(text).decode() for text in (b"a/key", b"a/key"))
    assert stored is not sent
    state = State(stored_state({stored: Entry(stored, b"0", 1, 1, 1)}))
    decided = plain_puts.put_all([Put(sent, b"1")], state, HEAD, NOW, max_value_bytes=MAX_VALUE_BYTES)
    assert decided is not None
    [change] = decided[1]
    assert change.name is stored


@pytest.mark.parametrize(
    "other",
    [
        Put("b", b"1", ("path",)),
        Put("b", b"1", ttl=5),
        Put("b", b"1", condition=Condition(if_none_match="*")),
        Put("b", b"1", lease_id="lease"),
        Put("b", b"123456789"),
        Delete("b"),
        Acquire("l", "lease", 5),
    ],
    ids=["path", "ttl", "condition", "lease", "too large", "deletion", "lock"],
)
def test_a_batch_with_any_other_operation_is_decided_by_the_general_rule(other: Operation) -> None:
    operations = [Put("a", b"1"), other, Put("c", b"1")]
    state = state_of({})
    assert plain_puts.put_all(operations, state, HEAD, NOW, max_value_bytes=MAX_VALUE_BYTES) is None
    outcomes, _ = evaluate(operations, state, HEAD, NOW, max_value_bytes=MAX_VALUE_BYTES)
    assert [type(outcome) is Written for outcome in (outcomes[0], outcomes[2])] == [True, True]


def test_a_batch_is_decided_by_the_general_rule_if_the_one_for_plain_puts_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def raises(*_arguments: object, **_named: object) -> None:
        raise MemoryError

    operations: list[Operation] = [Put("a", b"1"), Put("a", b"2")]
    state = state_of({"a": (1, 1, None)})
    expected = decided_one_by_one(operations, state)
    monkeypatch.setattr(plain_puts, "put_all", raises)
    assert evaluate(operations, state, HEAD, NOW, max_value_bytes=MAX_VALUE_BYTES) == expected
