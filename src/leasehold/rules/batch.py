"""All the rules. What is asked, the state and the time go in; what happened and what to write come out.

Nothing here does I/O or reads a clock, so the rules are the same on every engine and can be run again when an engine
must retry. A refused operation changes nothing and does not disturb its neighbours in the batch. To add an
operation, add its struct in `model` and a branch in `_Batch.apply`.
"""

import operator
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from leasehold import values
from leasehold.errors import ServiceError, not_found
from leasehold.limits import MAX_BATCH_WORK_BYTES, MAX_PARTS_BYTES
from leasehold.model import (
    Acquire,
    Change,
    Condition,
    Delete,
    Deleted,
    Deletion,
    Entry,
    Expire,
    ExpireLease,
    Found,
    Held,
    Json,
    JsonPatch,
    Lease,
    Leased,
    LeaseEnd,
    LockOperation,
    MergePatch,
    NotModified,
    Operation,
    Outcome,
    Pointer,
    Put,
    Read,
    Release,
    Released,
    Renew,
    Tags,
    Touched,
    Unchanged,
    View,
    Written,
    is_expired,
    name_of,
)
from leasehold.times import format_time
from leasehold.values.budgets import WorkBudget

_SECOND: Final = 1_000_000

_revision_of = operator.attrgetter("revision")


def evaluate(
    operations: Sequence[Operation], view: View, revision: int, now: int, *, max_value_bytes: int
) -> tuple[list[Outcome | ServiceError], list[Change]]:
    """Decide a batch: one outcome for each operation, in order, and the last state of each key that changed.

    `revision` is the head before the batch; each change takes the next one. `now` is in microseconds. The changes
    are in the order of their revisions, so the last one's is the new head.

    There may be fewer outcomes than operations, though at least one: the batch ends before the partial update by
    which it would take too long (MAX_BATCH_WORK_BYTES). What is behind it has changed nothing and is asked again.
    """
    batch = _Batch(view, revision, now, max_value_bytes)
    apply = batch.apply
    outcomes: list[Outcome | ServiceError] = []
    outcome: Outcome | ServiceError
    for operation in operations:
        try:
            outcome = apply(operation)
        except ServiceError as refusal:
            outcome = refusal
        except _EnoughError:
            break
        except Exception as failure:  # noqa: BLE001 - it changed nothing, so it is nobody else's
            outcome = _unforeseen(operation, failure)
        outcomes.append(outcome)
    return outcomes, batch.changes()


def touched(operations: Sequence[Operation]) -> Touched:
    """What `evaluate` will look at."""
    plain = [operation.key for operation in operations if type(operation) is Put and operation.lease_id is None]
    if len(plain) == len(operations):  # nearly always
        return Touched(plain)
    keys: list[str] = []
    locks: list[str] = []
    lease_ids: list[str] = []
    for operation in operations:
        if isinstance(operation, LockOperation):
            locks.append(operation.lock)
            continue
        keys.append(operation.key)
        if not isinstance(operation, Expire) and operation.lease_id is not None:
            lease_ids.append(operation.lease_id)
    return Touched(keys, locks, lease_ids)


def evaluate_read(read: Read, entry: Entry | None, incarnation: str) -> Found | NotModified:
    """What a read of `entry` (live, or None), in this incarnation of the store, gives.

    Raises `not_found`, `path_not_found`, and `precondition_failed` for If-Match.
    """
    if entry is None:
        raise not_found()
    condition = read.condition
    if condition is not None:
        _check_match(condition, entry, incarnation)
        if condition.if_none_match is not None and _matches(condition.if_none_match, entry, incarnation):
            return NotModified(entry.revision)
    if not entry.value:
        raise values.unreadable(key=entry.key)
    if read.paths is None:
        return Found(entry)
    with values.collector_paused(len(entry.value)):
        return Found(entry, _parts(values.decode(entry.value), read.paths))


def _parts(value: Json, paths: Sequence[Pointer]) -> tuple[bytes, ...]:
    """The JSON text at each of `paths`, which may lie within one another. Raises `path_not_found`, `too_large`."""
    parts: list[bytes] = []
    size = 0
    for path in paths:
        parts.append(values.encode(values.get_at(value, path)))
        size += len(parts[-1])
        if size > MAX_PARTS_BYTES and len(paths) > 1:
            raise ServiceError(
                "too_large",
                f"the parts together are larger than {MAX_PARTS_BYTES} bytes",
                details={"limit": MAX_PARTS_BYTES},
            )
    return tuple(parts)


class _EnoughError(Exception):
    """The batch ends before this operation."""


def _unforeseen(operation: Operation, failure: Exception) -> ServiceError:
    """An exception where no rule raises one: of what is stored under this name, or a fault of the service."""
    error = ServiceError(
        "internal",
        "the service failed; nothing was changed",
        details={"lock" if isinstance(operation, LockOperation) else "key": name_of(operation)},
    )
    error.__cause__ = failure
    return error


class _Batch:
    """The state of one evaluation: what the view shows, under what this batch has changed so far.

    An operation changes it in its last step and in one assignment. So one that raises has changed nothing, whatever
    it raises; a revision that it took is left out.
    """

    __slots__ = (
        "_acquired",
        "_entries",
        "_is_in_order",
        "_leases",
        "_max_value_bytes",
        "_now",
        "_revision",
        "_view",
        "_work_bytes",
    )

    def __init__(self, view: View, revision: int, now: int, max_value_bytes: int) -> None:
        self._view = view
        self._revision = revision
        self._now = now
        self._max_value_bytes = max_value_bytes
        self._is_in_order = True
        """Both of these are in the order of revisions: nothing in them was changed twice."""
        self._entries: dict[str, Entry | Deletion] = {}
        self._leases: dict[str, Lease | LeaseEnd] = {}
        self._acquired: dict[str, str] = {}
        """The lock by the lease_id, of what the view cannot know."""
        self._work_bytes = 0
        """Spent on partial updates."""

    def changes(self) -> list[Change]:
        """What was changed so far, in the order of revisions."""
        if not self._leases and self._is_in_order:
            return list(self._entries.values())
        return sorted((*self._entries.values(), *self._leases.values()), key=_revision_of)

    def apply(self, operation: Operation) -> Outcome:
        if isinstance(operation, Put):  # nearly always
            return self._put(operation)
        if isinstance(operation, LockOperation):
            return self._apply_to_lock(operation)
        if isinstance(operation, Expire):
            return self._expire(operation)
        return self._change(operation)

    def _next_revision(self) -> int:
        self._revision += 1
        return self._revision

    # Entries --------------------------------------------------------------------------------------------------

    def _put(self, operation: Put) -> Written:
        if operation.lease_id is not None:
            self._check_fence(operation.lease_id)
        current = self._live(operation.key)
        if operation.condition is not None:
            _check(operation.condition, current, self._view.incarnation)
        if operation.path is not None:
            return self._put_at(current, operation, operation.path)
        if len(operation.value) > self._max_value_bytes:
            # A body within its limit may be larger once it is stored: `1e15` becomes `1000000000000000.0`.
            values.check_size(operation.value, self._max_value_bytes, before=b"" if current is None else current.value)
        return self._write(current, operation.key, operation.value, operation.ttl)

    def _change(self, operation: Delete | MergePatch | JsonPatch) -> Written | Deleted:
        """What changes something that exists."""
        if operation.lease_id is not None:
            self._check_fence(operation.lease_id)
        current = self._live(operation.key)
        # A missing entry is reported before a failed precondition, because preconditions are for requests that would
        # succeed without them (RFC 9110, section 13.2.1). The fence comes before both: whoever has lost the lease
        # must hear that, whatever has become of the entry meanwhile.
        if current is None:
            raise not_found()
        if operation.condition is not None:
            _check(operation.condition, current, self._view.incarnation)
        if isinstance(operation, Delete) and not operation.path:
            return self._delete(operation.key)
        return self._rewrite(current, operation)

    def _stored(self, key: str) -> Entry | None:
        change = self._entries.get(key)
        if change is None:
            return self._view.entry(key)
        return change if type(change) is Entry else None

    def _live(self, key: str) -> Entry | None:
        entry = self._stored(key) if key in self._entries else self._view.entry(key)
        if entry is None or entry.expires_at is None:  # nearly always
            return entry
        return None if is_expired(entry, self._now) else entry

    def _put_at(self, current: Entry | None, operation: Put, path: Pointer) -> Written:
        before = b"" if current is None else current.value
        self._begin_work(len(before))
        with values.collector_paused(len(before)):
            container = values.container_for(path) if current is None else values.decode(before)
            value = values.set_at(container, path, values.decode(operation.value))
            encoded = values.encode_bounded(value, max_bytes=self._max_value_bytes, before=before)
            del container, value
        return self._write(current, operation.key, encoded, operation.ttl, path, operation.value)

    def _rewrite(self, current: Entry, operation: Delete | MergePatch | JsonPatch) -> Written:
        before = current.value
        self._begin_work(len(before))
        budget = WorkBudget(len(before))
        try:
            with values.collector_paused(values.LARGE_BYTES + 1):  # a patch may make a small value large
                value = _changed(values.decode(before), operation, budget, self._max_value_bytes)
                encoded = values.encode_bounded(value, max_bytes=self._max_value_bytes, before=before)
                del value
        finally:
            self._work_bytes += budget.spent
        return self._write(current, current.key, encoded, operation.ttl)

    def _begin_work(self, value_bytes: int) -> None:
        """A value is about to be changed. Ends the batch before that if it would take too long."""
        if self._work_bytes and self._work_bytes + value_bytes > MAX_BATCH_WORK_BYTES:
            raise _EnoughError
        self._work_bytes += value_bytes

    def _write(
        self,
        current: Entry | None,
        key: str,
        value: bytes,
        ttl: int | None,
        path: Pointer | None = None,
        part: bytes | None = None,
    ) -> Written:
        now = self._now
        created_at = now
        if current is not None:
            # The key's own string too, so that a million entries that are overwritten do not keep two each.
            key, created_at = current.key, current.created_at
        expires_at = None if ttl is None else now + ttl
        self._revision += 1
        entry = Entry(key, value, self._revision, created_at, now, expires_at)
        written = Written(entry, current is None, path, part)
        if key in self._entries:
            self._is_in_order = False
        self._entries[key] = entry
        return written

    def _delete(self, key: str) -> Deleted:
        deletion = Deletion(key, self._next_revision())
        deleted = Deleted(key, deletion.revision)
        if key in self._entries:
            self._is_in_order = False
        self._entries[key] = deletion
        return deleted

    def _expire(self, operation: Expire) -> Deleted | Unchanged:
        entry = self._stored(operation.key)
        if entry is None or not is_expired(entry, self._now):
            return Unchanged()
        return self._delete(operation.key)

    # Leases ---------------------------------------------------------------------------------------------------

    def _apply_to_lock(self, operation: LockOperation) -> Outcome:
        lease = self._stored_lease(operation.lock)
        is_alive = lease is not None and not is_expired(lease, self._now)
        if isinstance(operation, ExpireLease):
            return Unchanged() if lease is None or is_alive else self._end(lease)
        live = lease if is_alive else None
        if isinstance(operation, Acquire):
            return self._acquire(operation) if live is None else Held(live, self._now)
        if isinstance(operation, Renew):
            # Also when nobody has taken the lock since: the holder must not believe that it held it all the time.
            if live is None or live.lease_id != operation.lease_id:
                raise _lease_lost()
            return self._renew(live, operation.ttl)
        if live is None:
            raise lock_not_found()
        _check_release(operation, live)
        return self._end(live)

    def _stored_lease(self, lock: str) -> Lease | None:
        change = self._leases.get(lock)
        if change is None:
            return self._view.lease(lock)
        return change if type(change) is Lease else None

    def _check_fence(self, lease_id: str) -> None:
        lock = self._acquired.get(lease_id)
        if lock is None and (seen := self._view.lease_by_id(lease_id)) is not None:
            lock = seen.lock
        lease = None if lock is None else self._stored_lease(lock)
        if lease is None or lease.lease_id != lease_id or is_expired(lease, self._now):
            raise _lease_lost(status=412)

    def _acquire(self, operation: Acquire) -> Leased:
        now, token = self._now, self._next_revision()
        lease = Lease(
            operation.lock,
            operation.lease_id,
            token=token,
            revision=token,
            acquired_at=now,
            expires_at=now + operation.ttl,
            ttl=operation.ttl,
            holder=operation.holder,
            owner=operation.owner,
        )
        self._acquired[lease.lease_id] = lease.lock
        return self._keep(lease)

    def _renew(self, lease: Lease, ttl: int | None) -> Leased:
        ttl = lease.ttl if ttl is None else ttl
        expires_at = max(lease.expires_at, self._now + ttl)
        return self._keep(replace(lease, revision=self._next_revision(), expires_at=expires_at, ttl=ttl))

    def _keep(self, lease: Lease) -> Leased:
        leased = Leased(lease, self._now)
        self._leases[lease.lock] = lease
        return leased

    def _end(self, lease: Lease) -> Released:
        end = LeaseEnd(lease.lock, self._next_revision())
        released = Released(end.lock, end.revision)
        self._leases[end.lock] = end
        return released


def _changed(value: Json, operation: Delete | MergePatch | JsonPatch, budget: WorkBudget, max_bytes: int) -> Json:
    """What a partial update makes of a decoded value, which it consumes."""
    if isinstance(operation, MergePatch):
        return values.merge_patch(value, operation.patch, budget)
    if isinstance(operation, JsonPatch):
        return values.json_patch(value, operation.steps, max_bytes=max_bytes, budget=budget)
    assert operation.path
    smaller = values.remove_at(value, operation.path)
    if not _names_revisions(operation.condition) and isinstance(values.get_at(smaller, operation.path[:-1]), list):
        # A proxy may send a DELETE again whose answer was lost (RFC 9110, section 9.2.2), and would remove the element
        # that has moved up. (What cannot be removed at all was refused before.)
        raise ServiceError(
            "precondition_required",
            "an element of a list is removed with If-Match and the entry's ETag, or by a JSON patch",
        )
    return smaller


def _names_revisions(condition: Condition | None) -> bool:
    """Whether a change can be done only once, because it leaves a revision that the condition does not name."""
    return condition is not None and condition.if_match not in (None, "*")


def _check_release(release: Release, lease: Lease) -> None:
    """A lease is ended by who knows its secret; by its holder, who must say which lease is meant; or by force."""
    if release.is_forced:
        return
    if release.lease_id is None:
        if release.holder != lease.holder:
            raise ServiceError(
                "forbidden", "another caller acquired the lock; give its lease_id", reason="another caller's lease"
            )
        # Callers may share a subject, and all have the same one where no tokens are asked for.
        is_meant = release.token == lease.token
    else:
        is_meant = release.lease_id == lease.lease_id and release.token in (None, lease.token)
    if not is_meant:
        raise _lease_lost()


def lock_not_found() -> ServiceError:
    return ServiceError("lock_not_found", "nobody holds the lock")


def _lease_lost(*, status: int | None = None) -> ServiceError:
    return ServiceError("lease_lost", "the lease is not alive", status=status)


def lock_held(held: Held) -> ServiceError:
    """What a caller is told who does not wait (any longer). The secret `lease_id` stays with its holder."""
    lease = held.lease
    seconds = -(-(lease.expires_at - held.now) // _SECOND)
    return ServiceError(
        "lock_held",
        "another lease on the lock is alive",
        details={"owner": msgspec.Raw(lease.owner), "expires_at": format_time(lease.expires_at)},
        headers={"Retry-After": str(max(seconds, 1))},
    )


def _check(condition: Condition, entry: Entry | None, incarnation: str) -> None:
    """If-Match and If-None-Match of a change (RFC 9110, section 13.2.2)."""
    _check_match(condition, entry, incarnation)
    if condition.if_none_match is not None and _matches(condition.if_none_match, entry, incarnation):
        raise _precondition_failed(entry, incarnation)


def _check_match(condition: Condition, entry: Entry | None, incarnation: str) -> None:
    if condition.if_match is None or _matches(condition.if_match, entry, incarnation):
        return
    if entry is not None and _matches(condition.changed, entry, incarnation):
        raise _precondition_failed(entry, incarnation, reason=_CHANGED_TAG)
    raise _precondition_failed(entry, incarnation)


def _matches(wanted: Tags, entry: Entry | None, incarnation: str) -> bool:
    """Whether `entry` is one of those `wanted`. A revision alone is taken as one of this incarnation."""
    if entry is None:
        return False
    return wanted == "*" or entry.revision in wanted or (entry.revision, incarnation) in wanted


_CHANGED_TAG: Final = (
    "a proxy that compresses has changed the ETag, which no longer matches: switch compression off in front of the "
    "service, or send the revision alone as the tag"
)


def _precondition_failed(
    entry: Entry | None, incarnation: str, *, reason: str = "the entry is at another revision"
) -> ServiceError:
    if entry is None:
        return ServiceError("precondition_failed", "key does not exist", details={"revision": None})
    return ServiceError(
        "precondition_failed",
        reason,
        details={"revision": entry.revision},
        headers={"ETag": f'"{entry.revision}.{incarnation}"'},
    )
