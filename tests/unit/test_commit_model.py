"""`evaluate` against a plain dict: any operations, in any batches, while time passes."""

import json
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from leasehold.commit import evaluate
from leasehold.errors import ServiceError
from leasehold.model import (
    Change,
    Condition,
    Delete,
    Deleted,
    Entry,
    Expire,
    Json,
    JsonPatch,
    MergePatch,
    Operation,
    Outcome,
    PatchStep,
    Put,
    Written,
)

MAX_VALUE_BYTES = 40


class Kept(NamedTuple):
    """What the model knows of a key."""

    value: Json
    revision: int
    created_at: int
    updated_at: int
    expires_at: int | None


class RefusedError(Exception):
    """The argument is the code."""


class Model:
    """The rules once more, as simple as can be: one operation at a time, on a dict. Paths have one segment."""

    def __init__(self) -> None:
        self.revision = 0
        self.kept: dict[str, Kept] = {}

    def do(self, operation: Operation, now: int) -> str:
        """The code of the error, or what happened."""
        known = self.kept.get(operation.key)
        expired = known is not None and known.expires_at is not None and now >= known.expires_at
        live = None if expired else known
        if isinstance(operation, Expire):
            return self._delete(operation.key) if expired else "unchanged"
        if live is None and not isinstance(operation, Put):
            return "not_found"
        if not holds(operation.condition, live):
            return "precondition_failed"
        if isinstance(operation, Delete) and operation.path is None:
            return self._delete(operation.key)
        try:
            value = changed({} if live is None else live.value, operation)
        except RefusedError as refusal:
            return str(refusal)
        self.revision += 1
        created_at = now if live is None else live.created_at
        expires_at = None if operation.ttl is None else now + operation.ttl
        self.kept[operation.key] = Kept(value, self.revision, created_at, now, expires_at)
        return "created" if live is None else "replaced"

    def _delete(self, key: str) -> str:
        self.revision += 1
        del self.kept[key]
        return "deleted"


def holds(condition: Condition | None, live: Kept | None) -> bool:
    if condition is None:
        return True
    wanted, unwanted = condition.if_match, condition.if_none_match
    if live is None:
        return wanted is None
    return (wanted is None or wanted == "*" or live.revision in wanted) and (
        unwanted is None or (unwanted != "*" and live.revision not in unwanted)
    )


def changed(value: Json, operation: Operation) -> Json:
    members = dict(value) if isinstance(value, dict) else None
    match operation:
        case Put(path=None):
            return json_of(operation.value)
        case Put(path=(name,)):
            if members is None:
                raise RefusedError("conflict")
            after: Json = members | {name: json_of(operation.value)}
        case Delete(path=(name,)):
            if members is None or name not in members:
                raise RefusedError("path_not_found")
            after = {other: part for other, part in members.items() if other != name}
        case MergePatch(patch=dict() as patch):
            merged = (members or {}) | patch
            after = {name: part for name, part in merged.items() if not (name in patch and part is None)}
        case JsonPatch(steps=(PatchStep("test", (tested,), expected), PatchStep("add", (added,), part))):
            if members is None or tested not in members or members[tested] != expected:
                raise RefusedError("patch_failed")
            after = members | {added: part}
        case _:
            raise AssertionError(operation)
    if len(json.dumps(after, separators=(",", ":"))) > MAX_VALUE_BYTES:
        raise RefusedError("too_large")
    return after


def json_of(text: bytes) -> Json:
    value: Json = json.loads(text)
    return value


KEYS = st.sampled_from(["x", "y"])
NAMES = st.sampled_from(["a", "b", "c"])
PATHS = NAMES.map(lambda name: (name,))
SCALARS = st.integers(2, 5) | st.sampled_from(["", "s", "a longer string"])
"""Without null, which a merge patch takes for a removal."""
VALUES: st.SearchStrategy[Json] = SCALARS | st.none() | st.dictionaries(NAMES, SCALARS)
TEXTS = VALUES.map(lambda value: json.dumps(value, separators=(",", ":")).encode())
TTLS = st.none() | st.integers(1, 4)
REVISIONS = st.none() | st.just("*") | st.lists(st.integers(1, 12), max_size=3).map(tuple)
CONDITIONS = st.none() | st.builds(Condition, if_match=REVISIONS, if_none_match=REVISIONS)
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Put, KEYS, TEXTS, ttl=TTLS, condition=CONDITIONS),
    st.builds(Put, KEYS, TEXTS, PATHS, ttl=TTLS, condition=CONDITIONS),
    st.builds(Delete, KEYS, condition=CONDITIONS),
    st.builds(Delete, KEYS, PATHS, ttl=TTLS, condition=CONDITIONS),
    st.builds(MergePatch, KEYS, st.dictionaries(NAMES, SCALARS | st.none()), ttl=TTLS, condition=CONDITIONS),
    st.builds(
        JsonPatch,
        KEYS,
        st.tuples(
            st.builds(PatchStep, st.just("test"), PATHS, SCALARS), st.builds(PatchStep, st.just("add"), PATHS, SCALARS)
        ),
        ttl=TTLS,
        condition=CONDITIONS,
    ),
    st.builds(Expire, KEYS),
)
BATCHES = st.lists(st.tuples(st.integers(0, 3), st.lists(OPERATIONS, max_size=8)), max_size=6)
"""Each with the time that passes before it."""


class Store:
    """What an engine does with the changes of a batch."""

    def __init__(self) -> None:
        self.revision = 0
        self.entries: dict[str, Entry] = {}

    def entry(self, key: str) -> Entry | None:
        return self.entries.get(key)

    def decide(self, operations: list[Operation], now: int) -> tuple[list[Outcome | ServiceError], list[Change]]:
        return evaluate(operations, self, self.revision, now, max_value_bytes=MAX_VALUE_BYTES)

    def commit(self, operations: list[Operation], now: int) -> list[str]:
        outcomes, changes = self.decide(operations, now)
        for change in changes:
            self.revision = change.revision
            if isinstance(change, Entry):
                self.entries[change.key] = change
            else:
                self.entries.pop(change.key, None)
        return [name_of(outcome) for outcome in outcomes]

    def kept(self) -> dict[str, Kept]:
        return {
            key: Kept(json_of(entry.value), entry.revision, entry.created_at, entry.updated_at, entry.expires_at)
            for key, entry in self.entries.items()
        }


def name_of(outcome: Outcome | ServiceError) -> str:
    """As the model names it."""
    if isinstance(outcome, ServiceError):
        return outcome.code
    if isinstance(outcome, Written):
        return "created" if outcome.created else "replaced"
    return "deleted" if isinstance(outcome, Deleted) else "unchanged"


@settings(deadline=None, max_examples=400)
@given(BATCHES)
def test_any_batches_do_what_the_model_does(batches: list[tuple[int, list[Operation]]]) -> None:
    store, model, now = Store(), Model(), 1000
    for elapsed, operations in batches:
        now += elapsed
        assert store.commit(operations, now) == [model.do(operation, now) for operation in operations]
        assert (store.kept(), store.revision) == (model.kept, model.revision)


@settings(deadline=None)
@given(BATCHES)
def test_operations_do_the_same_in_one_batch_as_in_many(batches: list[tuple[int, list[Operation]]]) -> None:
    together, alone, now = Store(), Store(), 1000
    for elapsed, operations in batches:
        now += elapsed
        outcomes = [alone.commit([operation], now) for operation in operations]
        assert together.commit(operations, now) == [name for [name] in outcomes]
        assert (together.entries, together.revision) == (alone.entries, alone.revision)


@settings(deadline=None)
@given(BATCHES)
def test_a_batch_decided_again_is_decided_the_same(batches: list[tuple[int, list[Operation]]]) -> None:
    store, now = Store(), 1000
    for elapsed, operations in batches:
        now += elapsed
        first, again = store.decide(operations, now), store.decide(operations, now)
        assert [name_of(outcome) for outcome in first[0]] == [name_of(outcome) for outcome in again[0]]
        assert first[1] == again[1]
        store.commit(operations, now)


@settings(deadline=None)
@given(BATCHES)
def test_revisions_of_a_batch_grow_and_end_at_the_head(batches: list[tuple[int, list[Operation]]]) -> None:
    store, now = Store(), 1000
    for elapsed, operations in batches:
        now += elapsed
        head = store.revision
        outcomes, changes = store.decide(operations, now)
        done = [outcome for outcome in outcomes if isinstance(outcome, Written | Deleted)]
        revisions = [change.revision for change in changes]
        assert revisions == sorted(revisions)
        assert revisions[-1:] == [head + len(done)][: len(revisions)]
        store.commit(operations, now)
