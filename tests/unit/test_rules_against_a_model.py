"""`evaluate` compared with a model on plain dicts: random operations in random batches while time passes."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from driving import json_text, stored_state
from hypothesis import given, settings
from hypothesis import strategies as st

from leasehold.engines.base import by_kind
from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.model import (
    ENTRY,
    LEASE,
    Acquire,
    Change,
    Check,
    Committed,
    Condition,
    Delete,
    Deleted,
    EntryOperation,
    ExistenceCheck,
    Expire,
    Expired,
    Increment,
    Json,
    JsonPatch,
    LeaseCheck,
    Leased,
    LockOperation,
    MergePatch,
    Operation,
    Outcome,
    PatchStep,
    Put,
    Read,
    Release,
    Released,
    Renew,
    RevisionCheck,
    Transaction,
    Ttl,
    ValueCheck,
    Written,
)
from leasehold.rules import evaluate

MAX_VALUE_BYTES = 40
ABSENT: Any = ...


class Kept(NamedTuple):
    """The state of a key in the model."""

    value: Json
    revision: int
    created_at: int
    updated_at: int
    expires_at: int | None


class RefusedError(Exception):
    """A refusal by the model. Its argument is the code."""


class KeptLease(NamedTuple):
    """The state of a lock in the model."""

    lease_id: str
    holder: str
    token: int
    expires_at: int
    ttl: int


def refused_release(release: Release, alive: KeptLease) -> str | None:
    """The code with which a release of the live lease is refused."""
    if release.is_forced:
        return None
    if release.lease_id is None and release.holder != alive.holder:
        return "forbidden"
    named = [(release.lease_id, alive.lease_id), (release.token, alive.token)]
    agreeing = [given == own for given, own in named if given is not None]
    return None if agreeing and all(agreeing) else "lease_lost"


class Model:
    """The rules in their simplest form: one operation at a time, on dicts. Paths have one segment."""

    def __init__(self) -> None:
        self.revision = 0
        self.kept: dict[str, Kept] = {}
        self.leases: dict[str, KeptLease] = {}

    def do(self, operation: Operation, now: int) -> str:
        """Apply an operation. Returns the code of the error, or what happened."""
        if isinstance(operation, Transaction):
            return self._transact(operation, now)
        if isinstance(operation, LockOperation):
            return self._lock(operation, now)
        if isinstance(operation, Expire):
            return self._expire(operation, now)
        assert isinstance(operation, EntryOperation)
        if operation.lease_id is None:
            return self._do(operation, now)
        alive = [lease.lease_id for lease in self.leases.values() if now < lease.expires_at]
        return self._do(operation, now) if operation.lease_id in alive else "lease_lost"

    def _transact(self, transaction: Transaction, now: int) -> str:
        if not all(self._check_holds(check, now) for check in transaction.checks):
            return "precondition_failed"
        kept, before, after = dict(self.kept), self.revision, self.revision
        for operation in transaction.operations:
            self.revision = before
            told = "read" if isinstance(operation, Read) else self._do(operation, now)
            if told not in ("read", "created", "replaced", "deleted"):
                self.kept, self.revision = kept, before
                return told
            after = max(after, self.revision)
        self.revision = after
        return "committed"

    def _check_holds(self, check: Check, now: int) -> bool:
        if isinstance(check, LeaseCheck):
            return check.lease_id in [lease.lease_id for lease in self.leases.values() if now < lease.expires_at]
        known = self.kept.get(check.key)
        live = None if known is None or (known.expires_at is not None and now >= known.expires_at) else known
        if isinstance(check, RevisionCheck):
            return check.revision == (None if live is None else live.revision)
        if live is None or isinstance(check, ExistenceCheck):
            return live is not None
        value = live.value
        for name in check.path:
            if not isinstance(value, dict) or name not in value:
                return False
            value = value[name]
        return value == check.value

    def _lock(self, operation: LockOperation, now: int) -> str:
        lock, lease = operation.lock, self.leases.get(operation.lock)
        is_alive = lease is not None and now < lease.expires_at
        match operation:
            case Acquire():
                if is_alive:
                    return "held"
                return self._hold(
                    lock,
                    KeptLease(
                        operation.lease_id, operation.holder, self.revision + 1, now + operation.ttl, operation.ttl
                    ),
                )
            case Renew():
                if lease is None or not is_alive or lease.lease_id != operation.lease_id:
                    return "lease_lost"
                ttl = lease.ttl if operation.ttl is None else operation.ttl
                return self._hold(lock, lease._replace(expires_at=max(lease.expires_at, now + ttl), ttl=ttl))
            case Release() if lease is None or not is_alive:
                return "lock_not_found"
            case Release() if refused := refused_release(operation, self.leases[lock]):
                return refused
        self.revision += 1
        del self.leases[lock]
        return "released"

    def _hold(self, lock: str, lease: KeptLease) -> str:
        self.revision += 1
        self.leases[lock] = lease
        return "leased"

    def _expire(self, operation: Expire, now: int) -> str:
        kept: dict[str, Kept] | dict[str, KeptLease] = self.kept if operation.kind is ENTRY else self.leases
        known = kept.get(operation.name)
        if known is None or known.expires_at is None or now < known.expires_at:
            return "unchanged"
        self.revision += 1
        del kept[operation.name]
        return "expired"

    def _do(self, operation: EntryOperation, now: int) -> str:
        known = self.kept.get(operation.key)
        expired = known is not None and known.expires_at is not None and now >= known.expires_at
        live = None if expired else known
        if live is None and not isinstance(operation, Put | Increment):
            return "not_found"
        if not holds(operation.condition, live):
            return "precondition_failed"
        if isinstance(operation, Delete) and operation.path is None:
            return self._delete(operation.key)
        try:
            value = changed_by(operation, ABSENT if live is None else live.value)
        except RefusedError as refusal:
            return str(refusal)
        self.revision += 1
        created_at = now if live is None else live.created_at
        kept_until = None if live is None else live.expires_at
        expires_at = kept_until if operation.ttl == "keep" else None if operation.ttl is None else now + operation.ttl
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


def changed(value: Json, operation: EntryOperation) -> Json:
    members = dict(value) if isinstance(value, dict) else None
    match operation:
        case Put(path=None):
            after: Json = json_of(json_text(operation.value))
        case Put(path=(name,)):
            if members is None:
                raise RefusedError("conflict")
            after = members | {name: json_of(json_text(operation.value))}
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


def changed_by(operation: EntryOperation, value: Json) -> Json:
    """The value afterwards. `value`: before, or ABSENT."""
    if not isinstance(operation, Increment):
        return changed({} if value is ABSENT else value, operation)
    if not operation.path:
        return incremented(0 if value is ABSENT else value, operation)
    members = {} if value is ABSENT else value
    if not isinstance(members, dict):
        raise RefusedError("conflict")
    [name] = operation.path
    after: Json = members | {name: incremented(members.get(name, 0), operation)}
    if len(json.dumps(after, separators=(",", ":"))) > MAX_VALUE_BYTES:
        raise RefusedError("too_large")
    return after


def incremented(value: Json, operation: Increment) -> Json:
    if not isinstance(value, int):
        raise RefusedError("conflict")
    return value + operation.amount


def json_of(text: bytes) -> Json:
    value: Json = json.loads(text)
    return value


KEYS = st.sampled_from(["x", "y"])
NAMES = st.sampled_from(["a", "b", "c"])
PATHS = NAMES.map(lambda name: (name,))
SCALARS = st.integers(2, 5) | st.sampled_from(["", "s", "a longer string"])
"""Values without null, because null in a merge patch removes a member."""
VALUES: st.SearchStrategy[Json] = SCALARS | st.none() | st.dictionaries(NAMES, SCALARS)
TEXTS = VALUES.map(lambda value: json.dumps(value, separators=(",", ":")).encode())
LEASE_TTLS: st.SearchStrategy[int | None] = st.none() | st.integers(1, 4)
TTLS: st.SearchStrategy[Ttl] = LEASE_TTLS | st.just("keep")
LOCKS = st.sampled_from(["l", "m"])
LEASE_IDS = st.sampled_from(["l1", "l2", "m1", "m2"])
"""Lease ids begin with the name of their lock, because no client chooses one id for two locks."""
HOLDERS = st.sampled_from(["alice", "bob"])
FENCES = st.none() | LEASE_IDS
REVISIONS = st.none() | st.just("*") | st.lists(st.integers(1, 12), max_size=3).map(tuple)
CONDITIONS = st.none() | st.builds(Condition, if_match=REVISIONS, if_none_match=REVISIONS)
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Put, KEYS, TEXTS, ttl=TTLS, condition=CONDITIONS, lease_id=FENCES),
    st.builds(Put, KEYS, TEXTS, PATHS, ttl=TTLS, condition=CONDITIONS, lease_id=FENCES),
    st.builds(
        Increment, KEYS, st.integers(-2, 2), PATHS | st.just(()), ttl=TTLS, condition=CONDITIONS, lease_id=FENCES
    ),
    st.builds(Delete, KEYS, condition=CONDITIONS, lease_id=FENCES),
    st.builds(Delete, KEYS, PATHS, ttl=TTLS, condition=CONDITIONS, lease_id=FENCES),
    st.builds(
        MergePatch,
        KEYS,
        st.dictionaries(NAMES, SCALARS | st.none()),
        ttl=TTLS,
        condition=CONDITIONS,
        lease_id=FENCES,
    ),
    st.builds(
        JsonPatch,
        KEYS,
        st.tuples(
            st.builds(PatchStep, st.just("test"), PATHS, SCALARS), st.builds(PatchStep, st.just("add"), PATHS, SCALARS)
        ),
        ttl=TTLS,
        condition=CONDITIONS,
        lease_id=FENCES,
    ),
    st.builds(Expire, st.just(ENTRY), KEYS),
    st.builds(
        lambda lock, number, ttl, holder: Acquire(lock, f"{lock}{number}", ttl, b"null", holder),
        LOCKS,
        st.integers(1, 2),
        st.integers(1, 6),
        HOLDERS,
    ),
    st.builds(Renew, LOCKS, LEASE_IDS, LEASE_TTLS),
    st.builds(Release, LOCKS, FENCES, HOLDERS, st.none() | st.integers(1, 12), st.sampled_from([False, False, True])),
    st.builds(Expire, st.just(LEASE), LOCKS),
)
CHECKS: st.SearchStrategy[Check] = st.one_of(
    st.builds(RevisionCheck, KEYS, st.none() | st.integers(1, 12)),
    st.builds(ExistenceCheck, KEYS),
    st.builds(ValueCheck, KEYS, PATHS | st.just(()), SCALARS),
    st.builds(LeaseCheck, LEASE_IDS),
)
WRITES: st.SearchStrategy[EntryOperation | Read] = st.one_of(
    st.builds(Read, KEYS),
    st.builds(Put, KEYS, TEXTS, ttl=TTLS),
    st.builds(Put, KEYS, TEXTS, PATHS, ttl=TTLS),
    st.builds(Increment, KEYS, st.integers(-2, 2), PATHS | st.just(()), ttl=TTLS),
    st.builds(Delete, KEYS),
    st.builds(MergePatch, KEYS, st.dictionaries(NAMES, SCALARS | st.none()), ttl=TTLS),
)


def is_written_once(operations: Sequence[EntryOperation | Read]) -> bool:
    written = [operation.key for operation in operations if not isinstance(operation, Read)]
    return len(written) == len(set(written))


TRANSACTIONS = st.builds(
    Transaction,
    st.lists(CHECKS, max_size=1).map(tuple),
    st.lists(WRITES, min_size=1, max_size=4).filter(is_written_once).map(tuple),
)
BATCHES = st.lists(st.tuples(st.integers(0, 3), st.lists(OPERATIONS | TRANSACTIONS, max_size=8)), max_size=6)
"""Operations, each with the time that passes before it."""


class Store:
    """Applies the changes of a batch as an engine does."""

    def __init__(self) -> None:
        self.state = State(stored_state())

    def decide(self, operations: list[Operation], now: int) -> tuple[list[Outcome | ServiceError], list[Change]]:
        return evaluate(operations, self.state, self.state.revision, now, max_value_bytes=MAX_VALUE_BYTES)

    def commit(self, operations: list[Operation], now: int) -> list[str]:
        outcomes, changes = self.decide(operations, now)
        if changes:
            self.state.publish(by_kind(changes), changes[-1].revision)
        return [told(outcome) for outcome in outcomes]

    def kept(self) -> tuple[int, dict[str, Kept], dict[str, KeptLease]]:
        """The stored state in the form of the model, beginning with the head."""
        return (
            self.state.revision,
            {
                entry.key: Kept(
                    json_of(json_text(entry.value)),
                    entry.revision,
                    entry.created_at,
                    entry.updated_at,
                    entry.expires_at,
                )
                for entry in self.state.records(ENTRY).values()
            },
            {
                lease.lock: KeptLease(lease.lease_id, lease.holder, lease.token, lease.expires_at, lease.ttl)
                for lease in self.state.records(LEASE).values()
            },
        )


def told(outcome: Outcome | ServiceError) -> str:
    """An outcome in the form of the model."""
    if isinstance(outcome, ServiceError):
        return outcome.code
    if isinstance(outcome, Written):
        return "created" if outcome.created else "replaced"
    return type(outcome).__name__.lower()


@settings(deadline=None, max_examples=400)
@given(BATCHES)
def test_random_batches_have_the_outcomes_of_the_model(batches: list[tuple[int, list[Operation]]]) -> None:
    store, model, now = Store(), Model(), 1000
    for elapsed, operations in batches:
        now += elapsed
        assert store.commit(operations, now) == [model.do(operation, now) for operation in operations]
        assert store.kept() == (model.revision, model.kept, model.leases)


@settings(deadline=None)
@given(BATCHES)
def test_operations_have_the_same_outcomes_in_one_batch_as_in_many(batches: list[tuple[int, list[Operation]]]) -> None:
    together, alone, now = Store(), Store(), 1000
    for elapsed, operations in batches:
        now += elapsed
        outcomes = [alone.commit([operation], now) for operation in operations]
        assert together.commit(operations, now) == [name for [name] in outcomes]
        assert together.kept() == alone.kept()


@settings(deadline=None)
@given(BATCHES)
def test_a_batch_that_is_decided_twice_has_the_same_outcomes(batches: list[tuple[int, list[Operation]]]) -> None:
    store, now = Store(), 1000
    for elapsed, operations in batches:
        now += elapsed
        first, again = store.decide(operations, now), store.decide(operations, now)
        assert [told(outcome) for outcome in first[0]] == [told(outcome) for outcome in again[0]]
        assert first[1] == again[1]
        store.commit(operations, now)


def changes_something(outcome: Outcome | ServiceError) -> bool:
    if isinstance(outcome, Committed):
        return any(map(changes_something, outcome.results))
    return isinstance(outcome, Written | Deleted | Leased | Released | Expired)


@settings(deadline=None)
@given(BATCHES)
def test_revisions_of_a_batch_grow_and_end_at_the_head(batches: list[tuple[int, list[Operation]]]) -> None:
    store, now = Store(), 1000
    for elapsed, operations in batches:
        now += elapsed
        head = store.state.revision
        outcomes, changes = store.decide(operations, now)
        done = [outcome for outcome in outcomes if changes_something(outcome)]
        revisions = [change.revision for change in changes]
        assert revisions == sorted(revisions)
        assert revisions[-1:] == [head + len(done)][: len(revisions)]
        store.commit(operations, now)
