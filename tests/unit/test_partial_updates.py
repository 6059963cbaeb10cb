"""Partial updates that are prepared before they are decided: the answers are the same, whatever happened in between."""

import gc
from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import count
from unittest.mock import patch

import pytest
from driving import INCARNATION, stored_state
from hypothesis import given, settings
from hypothesis import strategies as st

from leasehold import values
from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.limits import KIB, MAX_BATCH_WORK_BYTES, MIB
from leasehold.model import (
    Binary,
    Change,
    Check,
    Condition,
    Content,
    Delete,
    Entry,
    EntryOperation,
    ExistenceCheck,
    Increment,
    Json,
    JsonPatch,
    Keyed,
    MergePatch,
    Operation,
    Outcome,
    PatchStep,
    Pointer,
    Prepared,
    Put,
    Read,
    RequestedOperation,
    Transaction,
    Value,
    ValueCheck,
)
from leasehold.rules import evaluate, preparation
from leasehold.rules.partial_updates import PREPARED_BYTES
from leasehold.values import decode, encode
from leasehold.values.steps import finished

HEAD = 7
NOW = 1_000_000
MAX_VALUE_BYTES = 40

KEYS = st.sampled_from(["a", "b"])
PATHS: st.SearchStrategy[Pointer] = st.lists(st.sampled_from(["a", "b", "0", "-"]), max_size=2).map(tuple)
JSON: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([1.5, "", "text"]),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.sampled_from("ab0"), parts, max_size=3),
    max_leaves=6,
)
VALUES: st.SearchStrategy[Value | None] = (
    st.none() | JSON.map(encode) | st.sampled_from([Binary("text/plain", Content(b"text")), b"", b"{not JSON"])
)
STATES = st.fixed_dictionaries({"a": VALUES, "b": VALUES})
STEPS = st.builds(PatchStep, st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), PATHS, JSON, PATHS)
CHANGES: st.SearchStrategy[EntryOperation] = st.one_of(
    st.builds(Put, KEYS, JSON.map(encode), st.none() | PATHS),
    st.builds(Put, KEYS, st.just(Binary("text/plain", Content(b"text"))), PATHS),
    st.builds(Increment, KEYS, st.integers(-3, 3) | st.just(2**63), PATHS),
    st.builds(MergePatch, KEYS, JSON),
    st.builds(JsonPatch, KEYS, st.lists(STEPS, max_size=3).map(tuple)),
    st.builds(Delete, KEYS, st.none() | PATHS, st.none(), st.none() | st.sampled_from([Condition(if_match=(HEAD,))])),
)


def keyed(operation: RequestedOperation) -> Keyed:
    return Keyed(operation, "receipt", b"fingerprint", 1)


CHECKS: st.SearchStrategy[Check] = (
    st.builds(ValueCheck, KEYS, PATHS, JSON)
    | st.builds(ValueCheck, KEYS, st.just(()), JSON)
    | st.builds(ExistenceCheck, KEYS)
)
TRANSACTIONS = st.builds(
    Transaction,
    st.lists(CHECKS, max_size=3).map(tuple),
    st.lists(CHANGES | st.builds(Read, KEYS), max_size=2, unique_by=lambda each: each.key).map(tuple),
)
OPERATIONS: st.SearchStrategy[Operation] = CHANGES | TRANSACTIONS | (CHANGES | TRANSACTIONS).map(keyed)


def entries_of(state: Mapping[str, Value | None]) -> dict[str, Entry]:
    return {key: Entry(key, value, HEAD, 1, 1) for key, value in state.items() if value is not None}


def steps_for(
    operation: Operation, entries: Mapping[str, Entry], *, body_bytes: int = PREPARED_BYTES + 1
) -> Generator[None, None, Operation] | None:
    return preparation(operation, entries.get, INCARNATION, body_bytes, MAX_VALUE_BYTES)


def prepared(operation: Operation, entries: Mapping[str, Entry]) -> Operation:
    steps = steps_for(operation, entries)
    return operation if steps is None else finished(steps)


def decided(
    operations: Sequence[Operation], entries: Mapping[str, Entry], max_value_bytes: int = MAX_VALUE_BYTES
) -> tuple[list[Outcome | tuple[object, ...]], list[Change]]:
    """Outcomes, where refusals can be compared, and changes."""
    view = State(stored_state(dict(entries), HEAD, incarnation=INCARNATION))
    outcomes, changes = evaluate(operations, view, HEAD, NOW, max_value_bytes=max_value_bytes)
    return [shown(each) for each in outcomes], changes


def shown(outcome: Outcome | ServiceError) -> Outcome | tuple[object, ...]:
    if not isinstance(outcome, ServiceError):
        return outcome
    return outcome.code, outcome.message, dict(outcome.details), dict(outcome.headers), outcome.status


@settings(deadline=None, max_examples=400)
@given(st.lists(OPERATIONS, min_size=1, max_size=3), STATES, STATES)
def test_a_prepared_change_has_the_same_outcome(
    operations: list[Operation], before: dict[str, Value | None], now: dict[str, Value | None]
) -> None:
    """Whether the values are those that it was prepared for, other ones, or gone."""
    for state in (before, now):
        changes = [prepared(operation, entries_of(before)) for operation in operations]
        assert decided(changes, entries_of(state)) == decided(operations, entries_of(state))


LARGE = encode([1.5] * 100_000)
LARGE_CHANGES: dict[str, EntryOperation] = {
    "a put of a part": Put("a", b"1", ("0",)),
    "an increment": Increment("a", 1, ("0",)),
    "a merge patch": MergePatch("a", {"b": 1}),
    "a JSON patch": JsonPatch("a", (PatchStep("add", ("-",), 1),)),
    "a test": JsonPatch("a", (PatchStep("test", ("0",), 1.5),)),
    "a test that fails": JsonPatch("a", (PatchStep("test", ("0",), 2),)),
    "a deletion of a part": Delete("a", ("0",), condition=Condition(if_match=(HEAD,))),
}


@pytest.mark.parametrize("operation", LARGE_CHANGES.values(), ids=LARGE_CHANGES.keys())
@pytest.mark.parametrize("form", ["alone", "with a key", "in a transaction"])
def test_what_is_prepared_is_neither_decoded_nor_encoded_when_it_is_decided(
    operation: EntryOperation, form: str
) -> None:
    asked: Operation = operation
    if form == "with a key":
        asked = keyed(operation)
    if form == "in a transaction":
        asked = Transaction((), (Put("b", b"1"), operation))
    entries = entries_of({"a": LARGE})
    steps = preparation(asked, entries.get, INCARNATION, 0, MIB)
    assert steps is not None
    ready = finished(steps)
    expected = decided([asked], entries, MIB)
    with (
        patch("leasehold.values.decode", side_effect=AssertionError),
        patch("leasehold.values.decode_steps", side_effect=AssertionError),
        patch("leasehold.values.encode_bounded", side_effect=AssertionError),
    ):
        assert decided([ready], entries, MIB) == expected


def test_a_large_value_is_decoded_changed_and_encoded_in_different_steps() -> None:
    entries = entries_of({"a": LARGE})
    steps = preparation(Put("a", b"1", ("0",)), entries.get, INCARNATION, 0, MIB)
    assert steps is not None
    seen: list[str] = []

    def noting(name: str) -> Callable[..., bytes]:
        def noted(*_: object, **__: object) -> bytes:
            seen.append(name)
            return b""

        return noted

    def decoding(_text: bytes) -> Generator[None, None, bytes]:
        for _ in range(2):
            seen.append("decode")
            yield
        return b""

    with (
        patch("leasehold.values.decode_steps", decoding),
        patch("leasehold.values.decode", noting("decode")),
        patch("leasehold.values.set_at", noting("change")),
        patch("leasehold.values.encode_bounded", noting("encode")),
    ):
        done = [list(seen) for _ in steps]
    decoded = ["decode", "decode"]
    assert done[:4] == [["decode"], decoded, decoded, [*decoded, "decode", "change"]]
    assert seen[4:] == ["encode"]


@pytest.mark.parametrize("key", [None, "k"], ids=["without a key", "with a key"])
@pytest.mark.parametrize("value", [1.5, 2], ids=["equal", "different"])
def test_a_check_of_a_large_value_is_neither_decoded_nor_compared_when_it_is_decided(
    key: str | None, value: float
) -> None:
    checks = (ValueCheck("a", ("0",), value), ValueCheck("a", (), [1.5] * 100_000), ExistenceCheck("a"))
    transaction = Transaction(checks, (Put("b", b"1"),))
    asked: Operation = transaction if key is None else keyed(transaction)
    entries = entries_of({"a": LARGE})
    steps = preparation(asked, entries.get, INCARNATION, 0, MIB)
    assert steps is not None
    ready = finished(steps)
    expected = decided([asked], entries, MIB)
    with (
        patch("leasehold.values.decode", side_effect=AssertionError),
        patch("leasehold.values.are_equal", side_effect=AssertionError),
    ):
        assert decided([ready], entries, MIB) == expected


def test_checks_of_many_values_are_prepared_in_steps() -> None:
    entries = entries_of({str(number): encode([number] * 8_000) for number in range(60)})
    checks = tuple(ValueCheck(str(number), (), [number] * 8_000) for number in range(60))
    steps = preparation(Transaction(checks, (Put("b", b"1"),)), entries.get, INCARNATION, 0, MIB)
    assert steps is not None
    assert sum(1 for _ in steps) >= 16_000 * len(checks) // (128 * KIB)


def test_a_value_that_is_checked_often_is_decoded_once_for_its_preparation() -> None:
    checks = tuple(ValueCheck("a", (str(number),), 1.5) for number in range(100))
    steps = preparation(Transaction(checks, (Read("a"),)), entries_of({"a": LARGE}).get, INCARNATION, 0, MIB)
    assert steps is not None
    with patch("leasehold.values.decode_steps", side_effect=values.decode_steps) as decoding:
        finished(steps)
    assert decoding.call_count == 1


def test_of_checks_that_take_too_much_work_only_what_may_be_needed_is_prepared() -> None:
    entries = entries_of({str(number): b"[%d,%b" % (number, LARGE[1:]) for number in range(10)})
    checks = tuple(ValueCheck(key, ("1",), 1.5) for key in entries)
    asked = Transaction(checks, (Read("a"),))
    steps = preparation(asked, entries.get, INCARNATION, 0, MIB)
    assert steps is not None
    ready = finished(steps)
    assert isinstance(ready, Transaction)
    assert [isinstance(each, ValueCheck) and each.prepared is not None for each in ready.checks] == [
        number < MAX_BATCH_WORK_BYTES // len(LARGE) for number in range(10)
    ]
    [outcome], _ = decided([ready], entries, MIB)
    assert [outcome] == decided([asked], entries, MIB)[0]
    assert isinstance(outcome, tuple)
    assert outcome[0] == "too_large"


def test_a_patch_that_takes_much_work_is_applied_in_several_steps() -> None:
    nested: Json = 1
    for _ in range(100):
        nested = {"a": nested}
    many: dict[str, Json] = {str(number): nested for number in range(300)}
    additions = tuple(PatchStep("add", ("a",) * 100, 1) for _ in range(2_000))
    for operation in (MergePatch("a", many), JsonPatch("a", additions)):
        entries = entries_of({"a": encode(nested)})
        steps = preparation(operation, entries.get, INCARNATION, MIB, MIB)
        assert steps is not None
        assert sum(1 for _ in steps) >= 4


def test_the_small_values_of_a_transaction_are_prepared_together() -> None:
    entries = entries_of({str(number): b"[1]" for number in range(100)})
    puts = tuple(Put(key, b"2", ("0",)) for key in entries)
    steps = preparation(Transaction((), puts), entries.get, INCARNATION, MIB, MIB)
    assert steps is not None
    assert sum(1 for _ in steps) == 0


@pytest.mark.parametrize(
    "operation",
    [Put("a", b"1"), Delete("a"), Read("b"), Transaction((), (Put("a", b"1"), Delete("b")))],
    ids=lambda operation: type(operation).__name__,
)
def test_a_change_of_a_whole_value_is_not_prepared(operation: Operation) -> None:
    assert steps_for(operation, entries_of({"a": LARGE, "b": LARGE})) is None


def test_a_change_of_a_small_value_is_not_prepared() -> None:
    entries = entries_of({"a": b"1"})
    assert steps_for(Increment("a", 1), entries, body_bytes=PREPARED_BYTES - 1) is None
    assert steps_for(Increment("a", 1), entries, body_bytes=PREPARED_BYTES) is not None


def first(prepared: Operation) -> Prepared | None:
    assert isinstance(prepared, Increment)
    return prepared.prepared


def test_a_value_that_changes_during_the_preparation_is_prepared_again() -> None:
    entries = entries_of({"a": b"1"})
    steps = steps_for(Increment("a", 1), entries)
    assert steps is not None
    next(steps)
    entries["a"] = Entry("a", b"2", HEAD + 1, 1, 1)
    assert first(finished(steps)) == Prepared(b"2", b"3", b"3")


def test_an_entry_that_is_deleted_during_the_preparation_counts_as_absent() -> None:
    entries = entries_of({"a": b"1"})
    steps = steps_for(Increment("a", 1), entries)
    assert steps is not None
    next(steps)
    entries.clear()
    assert first(finished(steps)) == Prepared(None, b"1", b"1")


def changing(steps: Generator[None, None, Operation], entries: dict[str, Entry]) -> Generator[None, None, Operation]:
    """The steps; after each of them, the value of `a` is another one."""
    for value in count(2):
        try:
            yield next(steps)
        except StopIteration as end:
            operation: Operation = end.value
            return operation
        entries["a"] = Entry("a", b"%d" % value, HEAD, 1, 1)
        assert value < 20, "it does not end"
    raise AssertionError


def test_a_preparation_ends_though_the_value_changes_all_the_time() -> None:
    entries = entries_of({"a": b"1"})
    steps = steps_for(Increment("a", 1), entries)
    assert steps is not None
    operation = finished(changing(steps, entries))
    assert first(operation) is not None
    assert first(operation) != first(prepared(Increment("a", 1), entries))
    assert decided([operation], entries) == decided([Increment("a", 1)], entries)


def test_nothing_is_prepared_for_a_condition_that_fails() -> None:
    entries = entries_of({"a": LARGE})
    for revision in (HEAD, HEAD + 1):
        change = Put("a", b"1", ("0",), condition=Condition(if_match=(revision,)))
        steps = preparation(change, entries.get, INCARNATION, 0, MIB)
        assert steps is not None
        ready = finished(steps)
        assert isinstance(ready, Put)
        assert (ready.prepared is not None) == (revision == HEAD)
        assert decided([ready], entries, MIB) == decided([change], entries, MIB)


def test_of_a_transaction_that_takes_too_much_work_only_what_may_be_needed_is_prepared() -> None:
    entries = entries_of(dict.fromkeys(map(str, range(10)), LARGE))
    asked = Transaction((), tuple(MergePatch(key, {}) for key in entries))
    steps = preparation(asked, entries.get, INCARNATION, 0, MIB)
    assert steps is not None
    ready = finished(steps)
    assert isinstance(ready, Transaction)
    assert [isinstance(each, MergePatch) and each.prepared is not None for each in ready.operations] == [
        number < MAX_BATCH_WORK_BYTES // len(LARGE) for number in range(10)
    ]
    [outcome], _ = decided([ready], entries, MIB)
    assert [outcome] == decided([asked], entries, MIB)[0]
    assert isinstance(outcome, tuple)
    assert outcome[0] == "too_large"


@pytest.mark.parametrize("ending", ["finished", "given up"])
def test_the_garbage_collection_pauses_until_the_decoded_value_is_freed(ending: str) -> None:
    steps = preparation(MergePatch("a", {}), entries_of({"a": LARGE}).get, INCARNATION, 0, MIB)
    assert steps is not None
    next(steps)
    assert not gc.isenabled()
    if ending == "finished":
        finished(steps)
    del steps
    assert gc.isenabled()


def test_a_prepared_refusal_does_not_keep_the_decoded_value() -> None:
    operation = LARGE_CHANGES["a test that fails"]
    steps = preparation(operation, entries_of({"a": LARGE}).get, INCARNATION, 0, MIB)
    assert steps is not None
    ready = finished(steps)
    assert isinstance(ready, JsonPatch)
    assert ready.prepared is not None
    error = ready.prepared.after
    assert isinstance(error, ServiceError)
    assert (error.code, error.__traceback__) == ("patch_failed", None)
    assert error.__cause__ is not None
    assert error.__cause__.__traceback__ is None
    assert decode(LARGE) == decode(ready.prepared.before or b"")
