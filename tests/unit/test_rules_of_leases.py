"""The rules of leases, one at a time, with the clock exactly at each limit."""

from collections.abc import Callable

import msgspec
import pytest
from driving import stored_state

from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.model import (
    ENTRY,
    LEASE,
    Acquire,
    Change,
    Delete,
    Deletion,
    Entry,
    Expire,
    Expired,
    Held,
    JsonPatch,
    Lease,
    Leased,
    LeaseEnd,
    MergePatch,
    Outcome,
    PatchStep,
    Put,
    Release,
    Released,
    Renew,
    SingleOperation,
    Touched,
    Unchanged,
    Written,
    name_of,
)
from leasehold.rules import evaluate, lock_held

HEAD = 100
NOW = 1_000_000_000
SECOND = 1_000_000


def lease(lock: str, *, expires_at: int, holder: str = "alice") -> Lease:
    return Lease(
        lock,
        f"id-of-{lock}",
        40,
        41,
        acquired_at=10,
        expires_at=expires_at,
        ttl=30 * SECOND,
        holder=holder,
        owner=b'"a"',
    )


HELD = lease("held", expires_at=NOW + 1)
"""A lease in its last microsecond."""
OVER = lease("over", expires_at=NOW)
"""A lease that has just expired and is still stored."""
LONG = lease("long", expires_at=NOW + 1_000 * SECOND)
USER = Entry("user", b'{"name":"alice"}', 42, created_at=10, updated_at=20)


def decide(*operations: SingleOperation) -> tuple[list[Outcome | ServiceError], list[Change]]:
    state = State(stored_state({"user": USER}, HEAD, leases={each.lock: each for each in (HELD, OVER, LONG)}))
    return evaluate(operations, state, HEAD, NOW, max_value_bytes=100)


def outcome_of(operation: SingleOperation) -> Outcome:
    """The outcome of one operation. Checks that the records written agree with it."""
    [outcome], changes = decide(operation)
    if isinstance(outcome, ServiceError):
        raise outcome
    expected: list[Change] = []
    if isinstance(outcome, Leased):
        expected = [outcome.lease]
    elif isinstance(outcome, Released):
        expected = [LeaseEnd(outcome.lock, outcome.revision)]
    elif isinstance(outcome, Written):
        expected = [outcome.entry]
    elif isinstance(outcome, Expired):
        expected = [LeaseEnd(name_of(operation), outcome.revision)]
    assert changes == expected
    return outcome


def refusal_of(operation: SingleOperation) -> tuple[str, int]:
    """Code and status of the error of one operation. Checks that nothing was written."""
    [outcome], changes = decide(operation)
    assert isinstance(outcome, ServiceError)
    assert changes == []
    return outcome.code, outcome.status


# Acquire ------------------------------------------------------------------------------------------------------


def test_a_free_lock_is_acquired_and_its_token_is_the_revision() -> None:
    expected = Lease(
        "free",
        "new",
        HEAD + 1,
        HEAD + 1,
        NOW,
        expires_at=NOW + 30 * SECOND,
        ttl=30 * SECOND,
        holder="bob",
        owner=b'{"n":1}',
    )
    assert outcome_of(Acquire("free", "new", 30 * SECOND, b'{"n":1}', "bob")) == Leased(expected, NOW)


def test_a_lock_is_held_through_the_last_microsecond_of_its_lease() -> None:
    assert outcome_of(Acquire("held", "new", SECOND)) == Held(HELD, NOW)


def test_a_lock_is_free_exactly_from_the_expiry_of_its_lease() -> None:
    outcome = outcome_of(Acquire("over", "new", SECOND))
    assert isinstance(outcome, Leased)
    assert (outcome.lease.lease_id, outcome.lease.token) == ("new", HEAD + 1)


def test_a_holder_cannot_acquire_its_lock_again() -> None:
    assert outcome_of(Acquire("held", "new", SECOND, holder="alice")) == Held(HELD, NOW)


def test_of_two_acquisitions_in_one_batch_the_first_gets_the_lock() -> None:
    [first, second], changes = decide(Acquire("free", "1", SECOND), Acquire("free", "2", SECOND))
    assert isinstance(first, Leased)
    assert second == Held(first.lease, NOW)
    assert changes == [first.lease]


def test_a_lock_released_in_a_batch_can_be_acquired_later_in_the_same_batch() -> None:
    [_, outcome], changes = decide(Release("long", LONG.lease_id), Acquire("long", "new", SECOND))
    assert isinstance(outcome, Leased)
    assert outcome.lease.token == HEAD + 2
    assert changes == [outcome.lease]


def test_tokens_grow_across_different_locks() -> None:
    outcomes, _ = decide(Acquire("a", "1", SECOND), Put("key", b"1"), Acquire("b", "2", SECOND))
    assert [each.lease.token for each in outcomes if isinstance(each, Leased)] == [HEAD + 1, HEAD + 3]


@pytest.mark.parametrize(
    ("expires_at", "seconds"), [(NOW + 1, "1"), (NOW + SECOND, "1"), (NOW + SECOND + 1, "2"), (NOW + 90 * SECOND, "90")]
)
def test_a_refused_acquisition_returns_the_owner_and_when_to_retry(expires_at: int, seconds: str) -> None:
    error = lock_held(Held(lease("x", expires_at=expires_at), NOW))
    assert (error.code, error.status, error.headers) == ("lock_held", 423, {"Retry-After": seconds})
    assert error.details["owner"] == msgspec.Raw(b'"a"')
    assert "id-of-x" not in repr(error.details)


# Renew --------------------------------------------------------------------------------------------------------


def test_a_renewal_extends_the_lease_by_its_ttl_from_now_and_keeps_the_token() -> None:
    renewed = msgspec.structs.replace(HELD, revision=HEAD + 1, expires_at=NOW + 60 * SECOND, ttl=60 * SECOND)
    assert outcome_of(Renew("held", HELD.lease_id, 60 * SECOND)) == Leased(renewed, NOW)


def test_a_renewal_without_a_ttl_uses_the_ttl_of_the_lease() -> None:
    outcome = outcome_of(Renew("held", HELD.lease_id))
    assert isinstance(outcome, Leased)
    assert outcome.lease.expires_at == NOW + HELD.ttl


def test_a_renewal_never_shortens_a_lease() -> None:
    outcome = outcome_of(Renew("long", LONG.lease_id, SECOND))
    assert isinstance(outcome, Leased)
    assert outcome.lease.expires_at == LONG.expires_at


def test_an_expired_lease_is_not_renewed_even_if_the_lock_is_still_free() -> None:
    assert refusal_of(Renew("over", OVER.lease_id, SECOND)) == ("lease_lost", 409)


@pytest.mark.parametrize("lock", ["held", "free"])
def test_a_renewal_with_another_lease_id_is_refused(lock: str) -> None:
    assert refusal_of(Renew(lock, OVER.lease_id, SECOND)) == ("lease_lost", 409)


# Release ------------------------------------------------------------------------------------------------------


def test_a_lease_is_released_by_its_holder() -> None:
    assert outcome_of(Release("held", HELD.lease_id)) == Released("held", HEAD + 1)


def test_a_release_by_a_stale_holder_keeps_the_lease_of_the_next_holder() -> None:
    assert refusal_of(Release("held", "id-of-the-one-before")) == ("lease_lost", 409)


@pytest.mark.parametrize(("lock", "lease_id"), [("over", OVER.lease_id), ("free", "any"), ("free", None)])
def test_a_release_of_a_free_lock_is_not_found(lock: str, lease_id: str | None) -> None:
    assert refusal_of(Release(lock, lease_id)) == ("lock_not_found", 404)


def test_a_release_without_a_lease_id_by_the_caller_that_acquired_it_is_done() -> None:
    assert outcome_of(Release("held", holder="alice", token=HELD.token)) == Released("held", HEAD + 1)


def test_a_release_without_a_lease_id_by_another_caller_is_refused() -> None:
    assert refusal_of(Release("held", holder="bob", token=HELD.token)) == ("forbidden", 403)


@pytest.mark.parametrize("token", [None, HELD.token - 1, HELD.token + 1])
def test_a_release_by_the_holder_with_neither_lease_id_nor_token_is_refused(token: int | None) -> None:
    assert refusal_of(Release("held", holder="alice", token=token)) == ("lease_lost", 409)


def test_a_release_with_the_token_of_another_lease_is_refused() -> None:
    assert refusal_of(Release("held", HELD.lease_id, token=HELD.token + 1)) == ("lease_lost", 409)
    assert outcome_of(Release("held", HELD.lease_id, token=HELD.token)) == Released("held", HEAD + 1)


def test_a_forced_release_ends_the_current_lease() -> None:
    assert outcome_of(Release("held", is_forced=True)) == Released("held", HEAD + 1)


@pytest.mark.parametrize("lock", ["over", "free"])
def test_a_forced_release_of_a_free_lock_is_not_found(lock: str) -> None:
    assert refusal_of(Release(lock, is_forced=True)) == ("lock_not_found", 404)


# Expiry -------------------------------------------------------------------------------------------------------


def test_expiry_removes_an_expired_lease() -> None:
    assert outcome_of(Expire(LEASE, "over")) == Expired(HEAD + 1)


@pytest.mark.parametrize("lock", ["held", "free"])
def test_expiry_keeps_live_leases_and_ignores_missing_ones(lock: str) -> None:
    assert outcome_of(Expire(LEASE, lock)) == Unchanged()


# Fenced writes ------------------------------------------------------------------------------------------------

WRITES: dict[str, Callable[[str, str], SingleOperation]] = {
    "put": lambda key, lease_id: Put(key, b"1", lease_id=lease_id),
    "put-at": lambda key, lease_id: Put(key, b"1", ("age",), lease_id=lease_id),
    "merge-patch": lambda key, lease_id: MergePatch(key, {"age": 1}, lease_id=lease_id),
    "json-patch": lambda key, lease_id: JsonPatch(key, (PatchStep("add", ("age",), 1),), lease_id=lease_id),
    "delete": lambda key, lease_id: Delete(key, lease_id=lease_id),
    "delete-at": lambda key, lease_id: Delete(key, ("name",), lease_id=lease_id),
}


@pytest.fixture(params=sorted(WRITES))
def write(request: pytest.FixtureRequest) -> Callable[[str, str], SingleOperation]:
    return WRITES[request.param]


def test_a_fenced_write_is_done_before_its_lease_expires(write: Callable[[str, str], SingleOperation]) -> None:
    [outcome], changes = decide(write("user", HELD.lease_id))
    assert not isinstance(outcome, ServiceError)
    assert len(changes) == 1


@pytest.mark.parametrize("lease_id", [OVER.lease_id, "never-given", "held"])
@pytest.mark.parametrize("key", ["user", "missing"])
def test_a_fenced_write_is_refused_from_the_expiry_of_its_lease_whatever_the_entry_is(
    write: Callable[[str, str], SingleOperation], key: str, lease_id: str
) -> None:
    assert refusal_of(write(key, lease_id)) == ("lease_lost", 412)


def test_a_fenced_write_after_a_release_in_the_same_batch_is_refused() -> None:
    [_, outcome, other], changes = decide(
        Release("held", HELD.lease_id), Put("user", b"1", lease_id=HELD.lease_id), Put("user", b"2")
    )
    assert isinstance(outcome, ServiceError)
    assert outcome.code == "lease_lost"
    assert isinstance(other, Written)
    assert [type(change) for change in changes] == [LeaseEnd, Entry]


def test_a_fenced_write_after_another_acquisition_in_the_same_batch_is_refused() -> None:
    [_, outcome], _ = decide(Acquire("over", "new", SECOND), Put("user", b"1", lease_id=OVER.lease_id))
    assert isinstance(outcome, ServiceError)
    assert (outcome.code, outcome.status) == ("lease_lost", 412)


def test_a_fenced_write_after_a_renewal_in_the_same_batch_is_done() -> None:
    outcomes, _ = decide(Renew("held", HELD.lease_id, SECOND), Put("user", b"1", lease_id=HELD.lease_id))
    assert [type(each) for each in outcomes] == [Leased, Written]


# A batch ------------------------------------------------------------------------------------------------------


def test_changes_of_entries_and_leases_are_ordered_by_revision() -> None:
    _, changes = decide(
        Acquire("a", "1", SECOND),
        Put("x", b"1"),
        Release("long", LONG.lease_id),
        Delete("user"),
        Renew("a", "1", SECOND),
    )
    assert [(type(change), change.revision) for change in changes] == [
        (Entry, HEAD + 2),
        (LeaseEnd, HEAD + 3),
        (Deletion, HEAD + 4),
        (Lease, HEAD + 5),
    ]


def test_touched_names_everything_that_a_batch_reads_or_writes() -> None:
    from leasehold.rules import touched

    operations = (Put("a", b"1"), Put("b", b"1", lease_id="i"), Acquire("l", "j", SECOND), Delete("c", lease_id="k"))
    assert touched(operations) == Touched({ENTRY: ["a", "b", "c"], LEASE: ["l"]}, {LEASE: ["i", "k"]})
