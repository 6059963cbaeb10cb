"""States of Terraform and OpenTofu, and their locks.

A state is the entry `terraform/NAME`. Its value is the text that Terraform sent, byte by byte, because a state may have
numbers that the values of this service cannot have. The lock of a state is the lease of the same name. The `owner` of
this lease is the lock info of Terraform, and the lock info has an ID.

The states before are entries, too: `terraform/NAME/versions/REVISION`. `terraform/NAME/versions` lists them. An entry
is moved there when the next state is saved, in the same commit and at the same revision. No name of a state has the
segment `versions` behind its first one, so these keys are no states.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from leasehold.errors import ErrorDetail, ServiceError, not_found
from leasehold.limits import MAX_STATE_VERSIONS
from leasehold.model import (
    ENTRY,
    LEASE,
    AnyKind,
    Binary,
    Deleted,
    DeleteState,
    Deletion,
    Entry,
    Held,
    Lease,
    Leased,
    LockState,
    Release,
    Released,
    SaveState,
    StateOperation,
    Unchanged,
    UnlockState,
    Written,
)
from leasehold.rules import leases
from leasehold.rules.fences import late_save, lease_lost
from leasehold.rules.overlay import Overlay, Staging
from leasehold.times import format_time

LOCK_INFO_MEMBERS: Final = ("ID", "Operation", "Info", "Who", "Version", "Created", "Path")
"""The members of a lock info that Terraform shows. All are strings."""


class Version(msgspec.Struct, frozen=True):
    """A state that was saved. `version`: the revision at which it was saved. `size`: in bytes."""

    version: int
    saved_at: str
    size: int


_decode_versions: Final = msgspec.json.Decoder(list[Version]).decode


def versions_key(state_key: str) -> str:
    """The key of the list of earlier states."""
    return f"{state_key}/versions"


def version_key(state_key: str, version: int) -> str:
    """The key of an earlier state."""
    return f"{state_key}/versions/{version}"


def names_in(operation: StateOperation) -> Sequence[tuple[AnyKind, str]]:
    """The records that an operation reads. Earlier states are replaced and deleted without being read."""
    if isinstance(operation, LockState | UnlockState):
        return ((LEASE, operation.lock),)
    return ((ENTRY, operation.key), (ENTRY, versions_key(operation.key)), (LEASE, operation.key))


# States -------------------------------------------------------------------------------------------------------


def save(overlay: Overlay, operation: SaveState) -> Written:
    """Replace the state, keep the one before as a version, and renew the lock.

    Raises `lock_held` and `lease_lost`.
    """
    key, now = operation.key, overlay.now
    lease = _checked_lock(overlay, key, operation.lock_id)
    current = overlay.live(ENTRY, key)
    staged = Staging(overlay)
    revision = staged.next_revision()
    if current is not None and is_state(current):
        _keep_version(staged, current, revision)
    created_at = now if current is None else current.created_at
    written = Written(Entry(key, operation.value, revision, created_at, now), current is None)
    staged.put(ENTRY, key, written.entry)
    if lease is not None:
        staged.put(LEASE, lease.lock, _renewed(lease, revision, now))
    staged.keep()
    return written


def delete(overlay: Overlay, operation: DeleteState) -> Deleted:
    """Delete the state and all its versions. Raises `not_found`, `lock_held` and `lease_lost`."""
    key = operation.key
    lease = _checked_lock(overlay, key, operation.lock_id)
    earlier = overlay.live(ENTRY, versions_key(key))
    keys = [] if overlay.live(ENTRY, key) is None else [key]
    if earlier is not None:
        keys += [versions_key(key), *(version_key(key, each.version) for each in earlier_versions(earlier))]
    if not keys:
        raise not_found()
    staged = Staging(overlay)
    revision = staged.next_revision()
    for each in keys:
        staged.put(ENTRY, each, Deletion(each, revision))
    if lease is not None:
        staged.put(LEASE, lease.lock, _renewed(lease, revision, overlay.now))
    staged.keep()
    return Deleted(key, revision)


def is_state(entry: Entry) -> bool:
    """Whether the value can be read. A state may also be a JSON value, if it was written to the key itself."""
    return bool(entry.value) or isinstance(entry.value, Binary)


def version_of(entry: Entry) -> Version:
    """The description of the current state."""
    return Version(entry.revision, format_time(entry.updated_at), len(entry.value))


def earlier_versions(entry: Entry | None) -> list[Version]:
    """The earlier states in the list of them, the oldest one first. Empty if another caller has changed the list."""
    if entry is None or isinstance(entry.value, Binary):
        return []
    try:
        return _decode_versions(entry.value)
    except msgspec.DecodeError:
        return []


def _keep_version(staged: Staging, current: Entry, revision: int) -> None:
    key, now = current.key, staged.now
    list_key = versions_key(key)
    listed = staged.live(ENTRY, list_key)
    versions = [*earlier_versions(listed), version_of(current)]
    most = MAX_STATE_VERSIONS - 1  # the current state is one of them
    for old in versions[:-most]:
        name = version_key(key, old.version)
        staged.put(ENTRY, name, Deletion(name, revision))
    name = version_key(key, current.revision)
    # `created_at` tells when the state was saved.
    staged.put(ENTRY, name, Entry(name, current.value, revision, current.updated_at, now))
    created_at = now if listed is None else listed.created_at
    staged.put(ENTRY, list_key, Entry(list_key, msgspec.json.encode(versions[-most:]), revision, created_at, now))


# Locks --------------------------------------------------------------------------------------------------------


def lock(overlay: Overlay, operation: LockState) -> Leased:
    """Acquire the lock. If this caller holds it with this ID, it gets the same lease: its first request was answered,
    and the answer was lost. Raises `lock_held`, with the lock info of the holder."""
    live = overlay.live(LEASE, operation.lock)
    if live is None:
        leased = leases.acquire(overlay, operation.acquisition)
        assert isinstance(leased, Leased), "the lock is free"
        return leased
    # The ID is not secret, so the caller must be the same one, too.
    if _lock_id_of(live) == operation.lock_id and live.holder == operation.acquisition.holder:
        return Leased(live, overlay.now)
    raise _state_locked(live, overlay.now)


def unlock(overlay: Overlay, operation: UnlockState) -> Released | Unchanged:
    """End the lease. There may be none: the request may be a repetition.

    Raises `lease_lost` if the lock is held with another ID, and `forbidden` if another caller holds it.
    """
    live = overlay.live(LEASE, operation.lock)
    if live is None:
        return Unchanged()
    if operation.lock_id is not None:
        if _lock_id_of(live) != operation.lock_id:
            raise lease_lost("the lock is held with another ID")
        if live.holder != operation.holder and not operation.is_admin:
            raise ServiceError(
                "forbidden",
                "another caller holds the lock; to end its lease needs the permission admin",
                reason="another caller's lease",
            )
    return leases.release(overlay, Release(operation.lock, is_forced=True))


def _checked_lock(overlay: Overlay, key: str, lock_id: str | None) -> Lease | None:
    """The lease under which a state is written; None if the lock is free and the caller does not claim to hold it."""
    live = overlay.live(LEASE, key)
    if lock_id is None:
        if live is not None:
            raise _state_locked(live, overlay.now)
        return None
    if live is None or _lock_id_of(live) != lock_id:
        raise late_save()
    return live


def _renewed(lease: Lease, revision: int, now: int) -> Lease:
    return replace(lease, revision=revision, expires_at=max(lease.expires_at, now + lease.ttl))


def _lock_id_of(lease: Lease) -> str | None:
    """The ID in the lock info; None if the lock was acquired with `/locks`."""
    lock_info = _lock_info_of(lease)
    lock_id = lock_info.get("ID")
    return lock_id if isinstance(lock_id, str) else None


def _lock_info_of(lease: Lease) -> dict[str, object]:
    owner: object = msgspec.json.decode(lease.owner)
    return owner if isinstance(owner, dict) else {}


def _state_locked(lease: Lease, now: int) -> ServiceError:
    """`lock_held` with the members of the holder's lock info, which Terraform shows to its user."""
    held = leases.lock_held(Held(lease, now))
    lock_info = _lock_info_of(lease)
    shown: dict[str, ErrorDetail] = {
        name: text for name in LOCK_INFO_MEMBERS if isinstance(text := lock_info.get(name), str)
    }
    if "ID" not in shown:  # the lock was acquired with `/locks`
        shown = {"ID": f"lease with token {lease.token}", "Info": lease.owner.decode()}
    return ServiceError(
        held.code,
        "the state is locked",
        details={**shown, "expires_at": held.details["expires_at"]},
        headers=held.headers,
    )
