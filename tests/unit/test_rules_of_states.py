"""The rules of Terraform states and their locks."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from driving import stored_state
from msgspec.structs import replace

from leasehold.engines.base import by_kind
from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.limits import MAX_STATE_VERSIONS
from leasehold.model import (
    ENTRY,
    LEASE,
    Acquire,
    Binary,
    Change,
    Content,
    Deleted,
    DeleteState,
    Deletion,
    Entry,
    Json,
    Keyed,
    Kind,
    Lease,
    Leased,
    LeaseEnd,
    LockState,
    Outcome,
    R,
    Released,
    Replayed,
    SaveState,
    StateOperation,
    Touched,
    Unchanged,
    UnlockState,
    Value,
    View,
    Written,
)
from leasehold.rules import evaluate, touched
from leasehold.rules.fences import refused_by_fence
from leasehold.rules.terraform import Version, version_key, versions_key

HEAD = 100
NOW = 1_000_000_000
HOUR = 3_600_000_000
KEY = "terraform/prod"
LIST = versions_key(KEY)
TTL = 24 * HOUR


def text(content: bytes) -> Binary:
    return Binary("text/plain; charset=utf-8", Content(content))


def lease(*, expires_at: int = NOW + HOUR, holder: str = "ann", owner: bytes = b'{"ID":"a","Who":"ann@ci"}') -> Lease:
    return Lease(KEY, "secret", 40, 41, acquired_at=10, expires_at=expires_at, ttl=TTL, holder=holder, owner=owner)


def entry(key: str, value: Value, revision: int = 50) -> Entry:
    return Entry(key, value, revision, created_at=10, updated_at=20)


STATE = entry(KEY, text(b"{}"))


class Loaded:
    """What a database has loaded for a batch: only the records that it may read."""

    def __init__(self, view: View, loaded: Touched) -> None:
        self._view = view
        self._loaded = loaded
        self.incarnation = view.incarnation
        self.quota, self.usage = view.quota, view.usage

    def records(self, kind: Kind[R]) -> Mapping[str, R]:
        names = self._loaded.names.get(kind, ())  # type: ignore[arg-type]
        return {name: record for name, record in self._view.records(kind).items() if name in names}

    def found(self, _kind: Kind[R]) -> Mapping[str, R]:
        return {}


class Store:
    """A store that operations are done on, one at a time."""

    def __init__(self, *entries: Entry, held: Lease | None = None) -> None:
        leases = {} if held is None else {held.lock: held}
        self._state = State(stored_state({each.key: each for each in entries}, HEAD, leases=leases))
        self.changes: list[Change] = []

    def do(self, operation: StateOperation | Keyed, *, now: int = NOW) -> Outcome:
        head = self._state.revision
        loaded = Loaded(self._state, touched([operation]))
        [outcome], self.changes = evaluate([operation], loaded, head, now, max_value_bytes=10)
        if self.changes:
            self._state.publish(by_kind(self.changes), self.changes[-1].revision)
        if isinstance(outcome, ServiceError):
            assert self.changes == []
            raise outcome
        return outcome

    def refusal(self, operation: StateOperation, *, now: int = NOW) -> ServiceError:
        with pytest.raises(ServiceError) as caught:
            self.do(operation, now=now)
        return caught.value

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self._state.records(ENTRY)

    @property
    def lease(self) -> Lease | None:
        return self._state.records(LEASE).get(KEY)

    @property
    def listed(self) -> list[Version]:
        value = self.entries[LIST].value
        assert isinstance(value, bytes)
        return msgspec.json.decode(value, type=list[Version])


def state_of(value: Value) -> bytes:
    assert isinstance(value, Binary)
    return bytes(value.data)


def save(content: bytes = b"{}", lock_id: str | None = None) -> SaveState:
    return SaveState(KEY, text(content), lock_id)


def lock(lock_id: str = "a", *, holder: str = "ann", ttl: int = HOUR) -> LockState:
    owner = msgspec.json.encode({"ID": lock_id, "Who": holder})
    return LockState(KEY, lock_id, Acquire(KEY, f"secret of {lock_id}", ttl, owner, holder))


def unlock(lock_id: str | None = "a", *, holder: str = "ann", is_admin: bool = False) -> UnlockState:
    return UnlockState(KEY, lock_id, holder, is_admin)


# Saving -------------------------------------------------------------------------------------------------------


def test_the_first_state_is_created_without_versions() -> None:
    store = Store()
    outcome = store.do(save(b"larger than any value may be"))
    assert isinstance(outcome, Written)
    assert (outcome.created, outcome.entry.revision, set(store.entries)) == (True, HEAD + 1, {KEY})


def test_a_saved_state_replaces_the_one_before_which_becomes_a_version() -> None:
    store = Store(STATE)
    outcome = store.do(save(b"[1]"))
    assert isinstance(outcome, Written)
    assert not outcome.created
    kept = store.entries[version_key(KEY, STATE.revision)]
    assert (state_of(store.entries[KEY].value), kept.value) == (b"[1]", STATE.value)
    assert (store.entries[KEY].created_at, kept.created_at) == (STATE.created_at, STATE.updated_at)
    assert store.listed == [Version(STATE.revision, "1970-01-01T00:00:00.000020Z", len(STATE.value))]
    assert {change.revision for change in store.changes} == {HEAD + 1}


def test_the_last_versions_are_kept_and_the_oldest_is_deleted() -> None:
    store = Store()
    for number in range(MAX_STATE_VERSIONS + 3):
        store.do(save(b"%d" % number))
    earlier = [HEAD + 4 + number for number in range(MAX_STATE_VERSIONS - 1)]
    assert [each.version for each in store.listed] == earlier
    assert set(store.entries) == {KEY, LIST, *(version_key(KEY, revision) for revision in earlier)}
    assert [state_of(store.entries[version_key(KEY, each)].value) for each in earlier] == [
        b"%d" % (number + 3) for number in range(MAX_STATE_VERSIONS - 1)
    ]


def test_a_state_that_was_written_to_its_key_becomes_a_version_too() -> None:
    store = Store(entry(KEY, b'{"serial":1}'))
    store.do(save())
    assert store.entries[version_key(KEY, 50)].value == b'{"serial":1}'


def test_a_state_that_cannot_be_read_is_replaced_and_not_kept() -> None:
    store = Store(entry(KEY, b""))
    store.do(save())
    assert set(store.entries) == {KEY}


@pytest.mark.parametrize("value", [b"{}", b'[{"version":"x"}]', text(b"[]"), b"", b"[" * 5_000], ids=repr)
def test_a_list_of_versions_that_another_caller_has_changed_is_begun_again(value: Value) -> None:
    store = Store(STATE, entry(LIST, value))
    store.do(save())
    assert [each.version for each in store.listed] == [STATE.revision]


# Saving under a lock ------------------------------------------------------------------------------------------


def test_a_write_with_the_id_of_the_lock_renews_the_lock_in_the_same_commit() -> None:
    store = Store(STATE, held=lease())
    store.do(save(lock_id="a"))
    assert store.lease == replace(lease(), revision=HEAD + 1, expires_at=NOW + TTL)
    assert {change.revision for change in store.changes} == {HEAD + 1}


def test_a_renewal_never_shortens_a_lease() -> None:
    held = lease(expires_at=NOW + 2 * TTL)
    store = Store(held=held)
    store.do(save(lock_id="a"))
    assert store.lease == replace(held, revision=HEAD + 1)


@pytest.mark.parametrize(
    "held",
    [None, lease(expires_at=NOW), lease(owner=b'{"ID":"b"}'), lease(owner=b'"a"'), lease(owner=b'{"ID":5}')],
    ids=["free", "expired", "another ID", "no lock info", "an ID that is no text"],
)
@pytest.mark.parametrize("operation", [save(lock_id="a"), DeleteState(KEY, "a")], ids=["save", "delete"])
def test_a_late_write_is_refused_and_changes_nothing(held: Lease | None, operation: StateOperation) -> None:
    store = Store(STATE, held=held)
    refusal = store.refusal(operation)
    assert (refusal.code, refusal.status, refused_by_fence(refusal)) == ("lease_lost", 409, True)
    assert store.entries == {KEY: STATE}


@pytest.mark.parametrize("operation", [save(), DeleteState(KEY)], ids=["save", "delete"])
def test_a_write_without_an_id_is_refused_while_the_state_is_locked(operation: StateOperation) -> None:
    store = Store(STATE, held=lease(expires_at=NOW + 1))
    refusal = store.refusal(operation)
    assert (refusal.code, refusal.status, refused_by_fence(refusal)) == ("lock_held", 423, False)
    store.do(operation, now=NOW + 1)


# Deleting -----------------------------------------------------------------------------------------------------


def test_a_deletion_deletes_the_state_and_its_versions_in_one_commit() -> None:
    other = entry("terraform/production", text(b"{}"))
    store = Store(STATE, other, held=lease())
    store.do(save(lock_id="a"))
    outcome = store.do(DeleteState(KEY, "a"))
    assert outcome == Deleted(KEY, HEAD + 2)
    assert store.entries == {other.key: other}
    deletions = [change for change in store.changes if isinstance(change, Deletion)]
    assert {(each.key, each.revision) for each in deletions} == {
        (key, HEAD + 2) for key in (KEY, LIST, version_key(KEY, STATE.revision))
    }
    assert store.lease is not None


def test_versions_whose_state_was_deleted_by_its_key_can_be_deleted() -> None:
    versions = b'[{"version":7,"saved_at":"","size":2}]'
    store = Store(entry(LIST, versions), entry(version_key(KEY, 7), text(b"{}")))
    assert store.do(DeleteState(KEY)) == Deleted(KEY, HEAD + 1)
    assert store.entries == {}


def test_a_state_that_does_not_exist_cannot_be_deleted() -> None:
    assert Store().refusal(DeleteState(KEY)).code == "not_found"


# Locks --------------------------------------------------------------------------------------------------------


def test_a_free_lock_is_acquired_with_the_lock_info_as_owner() -> None:
    store = Store(held=lease(expires_at=NOW))
    outcome = store.do(lock("b", holder="bob"))
    assert isinstance(outcome, Leased)
    assert store.lease == outcome.lease
    told = outcome.lease
    assert (told.token, told.expires_at, told.holder) == (HEAD + 1, NOW + HOUR, "bob")
    assert told.owner == b'{"ID":"b","Who":"bob"}'


def test_a_repeated_request_for_the_lock_gets_the_same_lease_and_changes_nothing() -> None:
    store = Store()
    first = store.do(lock())
    assert isinstance(first, Leased)
    assert store.do(replace(lock(), acquisition=replace(lock().acquisition, lease_id="other"))) == first
    assert store.changes == []


def test_another_caller_with_the_same_id_does_not_get_the_lock() -> None:
    """The ID is shown to everyone who asks for the lock."""
    assert Store(held=lease()).refusal(lock(holder="bob")).code == "lock_held"


HELD_BY: list[tuple[bytes, dict[str, Json]]] = [
    (b'{"ID":"a","Who":"ann","Info":"","Secret":"x","error":"none"}', {"ID": "a", "Who": "ann", "Info": ""}),
    (b'{"ID":"a","Path":7}', {"ID": "a"}),
    (b'{"job":1}', {"ID": "lease with token 40", "Info": '{"job":1}'}),
    (b'"deploy"', {"ID": "lease with token 40", "Info": '"deploy"'}),
]


@pytest.mark.parametrize(("owner", "shown"), HELD_BY, ids=lambda each: repr(each)[:20])
def test_whoever_does_not_get_the_lock_is_shown_the_lock_info_of_the_holder(owner: bytes, shown: Any) -> None:
    refusal = Store(held=lease(owner=owner)).refusal(lock("b"))
    assert (refusal.code, refusal.status) == ("lock_held", 423)
    assert refusal.details == shown | {"expires_at": "1970-01-01T01:16:40.000000Z"}


def test_the_lock_is_released_with_its_id() -> None:
    store = Store(held=lease())
    assert store.do(unlock()) == Released(KEY, HEAD + 1)
    assert store.changes == [LeaseEnd(KEY, HEAD + 1)]


@pytest.mark.parametrize("lock_id", ["a", None])
def test_to_release_a_lock_that_is_not_held_changes_nothing(lock_id: str | None) -> None:
    store = Store(held=lease(expires_at=NOW))
    assert store.do(unlock(lock_id)) == Unchanged()
    assert store.changes == []


def test_a_lock_is_not_released_with_another_id() -> None:
    store = Store(held=lease())
    refusal = store.refusal(unlock("b"))
    assert (refusal.code, refusal.status, refused_by_fence(refusal)) == ("lease_lost", 409, False)
    assert store.lease == lease()


def test_another_caller_needs_to_be_an_admin_to_release_a_lock_with_its_id() -> None:
    store = Store(held=lease())
    assert store.refusal(unlock(holder="bob")).code == "forbidden"
    assert store.do(unlock(holder="bob", is_admin=True)) == Released(KEY, HEAD + 1)


def test_a_forced_release_ends_the_lease_of_any_holder() -> None:
    for owner in (b'{"ID":"a"}', b"null"):
        assert Store(held=lease(owner=owner)).do(unlock(None)) == Released(KEY, HEAD + 1)


# With an idempotency key --------------------------------------------------------------------------------------


def test_a_repeated_save_has_the_same_outcome_and_saves_nothing() -> None:
    store = Store(STATE)
    keyed = Keyed(save(b"[1]"), "receipt", b"print", HOUR)
    first = store.do(keyed)
    assert isinstance(first, Written)
    repeated = store.do(keyed)
    assert isinstance(repeated, Replayed)
    assert isinstance(repeated.outcome, Written)
    assert repeated.outcome.entry.revision == first.entry.revision
    assert [each.version for each in store.listed] == [STATE.revision]


@pytest.mark.parametrize("operation", [DeleteState(KEY), lock(), unlock()], ids=lambda each: type(each).__name__)
def test_what_is_done_to_a_state_is_done_once(operation: StateOperation) -> None:
    store = Store(STATE, held=lease() if isinstance(operation, UnlockState) else None)
    first = store.do(Keyed(operation, "receipt", b"print", HOUR))
    assert store.do(Keyed(operation, "receipt", b"print", HOUR)) == Replayed(first)  # type: ignore[arg-type]
