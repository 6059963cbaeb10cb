"""Writes, increments, partial updates and deletions of entries."""

from leasehold import values
from leasehold.errors import ServiceError, not_found
from leasehold.model import (
    ENTRY,
    Binary,
    Delete,
    Deleted,
    DeletedEntries,
    DeleteEach,
    Deletion,
    Entry,
    EntryOperation,
    Increment,
    JsonPatch,
    MergePatch,
    Pointer,
    Prepared,
    Put,
    Ttl,
    Value,
    Written,
)
from leasehold.rules.binary import json_text_of, no_parts
from leasehold.rules.conditions import check
from leasehold.rules.fences import check_fence
from leasehold.rules.overlay import Overlay, Staging
from leasehold.rules.partial_updates import partial_update


def put(overlay: Overlay, operation: Put) -> Written:
    """Create or replace an entry, or a part of its value."""
    if operation.lease_id is not None:
        check_fence(overlay, operation.lease_id)
    current = overlay.live(ENTRY, operation.key)
    if operation.condition is not None:
        check(operation.condition, current, overlay.incarnation)
    if operation.path is not None:
        return _put_at(overlay, current, operation, operation.path)
    if len(operation.value) > overlay.max_value_bytes:
        # A body within the limit may be larger in its stored form: `1e15` becomes `1000000000000000.0`.
        before: Value = b"" if current is None else current.value
        values.check_size(operation.value, overlay.max_value_bytes, before=before)
    return _write(overlay, current, operation.key, operation.value, operation.ttl)


def increment(overlay: Overlay, operation: Increment) -> Written:
    """Add to a number. Integers are exact; the sum with a number that is not an integer is rounded to a double.

    Raises `conflict` if there is something other than a number, or if the sum is out of range.
    """
    if operation.lease_id is not None:
        check_fence(overlay, operation.lease_id)
    current = overlay.live(ENTRY, operation.key)
    if operation.condition is not None:
        check(operation.condition, current, overlay.incarnation)
    before = None if current is None else json_text_of(current)
    changed = _updated(overlay, operation, before)
    return _write(
        overlay, current, operation.key, _text_of(changed), operation.ttl, operation.path or None, changed.part
    )


def change(overlay: Overlay, operation: Delete | MergePatch | JsonPatch) -> Written | Deleted:
    """Change or delete an entry that exists."""
    if operation.lease_id is not None:
        check_fence(overlay, operation.lease_id)
    current = overlay.live(ENTRY, operation.key)
    # A missing entry is reported before a failed precondition, because preconditions are for requests that would
    # succeed without them (RFC 9110, section 13.2.1). The fence is checked before both: a caller that has lost its
    # lease must get that error in any case.
    if current is None:
        raise not_found()
    if operation.condition is not None:
        check(operation.condition, current, overlay.incarnation)
    if isinstance(operation, Delete) and not operation.path:
        deletion = Deletion(operation.key, overlay.next_revision())
        deleted = Deleted(deletion.key, deletion.revision)
        overlay.put(ENTRY, deletion.key, deletion)
        return deleted
    return _rewrite(overlay, current, operation)


def delete_each(overlay: Overlay, operation: DeleteEach) -> DeletedEntries:
    """Delete those of several entries that exist, each at its own revision.

    If there are none, but the steps before have deleted some, it takes a revision for the receipt of all steps.
    """
    if operation.lease_id is not None:
        check_fence(overlay, operation.lease_id)
    staged = Staging(overlay)
    keys = [key for key in operation.keys if staged.live(ENTRY, key) is not None]
    for key in keys:
        staged.put(ENTRY, key, Deletion(key, staged.next_revision()))
    revision = staged.revision if keys else operation.revision
    if not keys and operation.deleted:
        staged.next_revision()
    deleted = DeletedEntries(operation.deleted + len(keys), revision)
    staged.keep()
    return deleted


def _put_at(overlay: Overlay, current: Entry | None, operation: Put, path: Pointer) -> Written:
    part = operation.value
    if isinstance(part, Binary):
        raise no_parts()
    before = None if current is None else json_text_of(current)
    changed = _updated(overlay, operation, before)
    return _write(overlay, current, operation.key, _text_of(changed), operation.ttl, path, part)


def _rewrite(overlay: Overlay, current: Entry, operation: Delete | MergePatch | JsonPatch) -> Written:
    changed = _updated(overlay, operation, json_text_of(current))
    return _write(overlay, current, current.key, _text_of(changed), operation.ttl)


def _updated(overlay: Overlay, operation: EntryOperation, before: bytes | None) -> Prepared:
    overlay.begin_work(len(before or b""))
    changed = partial_update(operation, before, overlay.max_value_bytes)
    overlay.work_bytes += changed.work_bytes
    return changed


def _text_of(changed: Prepared) -> bytes:
    """The text of the new value. Raises the refusal, if it is one."""
    if isinstance(changed.after, ServiceError):
        raise changed.after
    return changed.after


def _write(
    overlay: Overlay,
    current: Entry | None,
    key: str,
    value: Value,
    ttl: Ttl,
    path: Pointer | None = None,
    part: bytes | None = None,
) -> Written:
    now = overlay.now
    created_at = now
    if current is not None:
        # The same string object for the key, so that a million overwritten entries do not keep two strings each.
        key, created_at = current.key, current.created_at
    if ttl is None:  # nearly always
        expires_at = None
    elif ttl == "keep":
        expires_at = None if current is None else current.expires_at
    else:
        expires_at = now + ttl
    overlay.revision = revision = overlay.revision + 1
    entry = Entry(key, value, revision, created_at, now, expires_at)
    written = Written(entry, current is None, path, part)
    overlay.put(ENTRY, key, entry)
    return written
