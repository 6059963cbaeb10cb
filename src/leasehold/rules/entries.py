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
    Increment,
    Json,
    JsonPatch,
    MergePatch,
    Pointer,
    Put,
    Ttl,
    Value,
    Written,
)
from leasehold.rules.binary import json_text_of, no_parts
from leasehold.rules.conditions import check, names_revisions
from leasehold.rules.fences import check_fence
from leasehold.rules.overlay import Overlay, Staging
from leasehold.values.budgets import WorkBudget


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
    before = b"" if current is None else json_text_of(current)
    path = operation.path
    overlay.begin_work(len(before))
    with values.collector_paused(len(before)):
        value = _empty_for(path) if current is None else values.decode(before)
        total = values.sum_of(values.number_at(value, path), operation.amount)
        encoded = values.encode_bounded(
            values.set_at(value, path, total), max_bytes=overlay.max_value_bytes, before=before
        )
        del value
    return _write(overlay, current, operation.key, encoded, operation.ttl, path or None, values.encode(total))


def _empty_for(path: Pointer) -> Json:
    return values.container_for(path) if path else 0


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
    before = b"" if current is None else json_text_of(current)
    overlay.begin_work(len(before))
    with values.collector_paused(len(before)):
        container = values.container_for(path) if current is None else values.decode(before)
        value = values.set_at(container, path, values.decode(part))
        encoded = values.encode_bounded(value, max_bytes=overlay.max_value_bytes, before=before)
        del container, value
    return _write(overlay, current, operation.key, encoded, operation.ttl, path, part)


def _rewrite(overlay: Overlay, current: Entry, operation: Delete | MergePatch | JsonPatch) -> Written:
    before = json_text_of(current)
    overlay.begin_work(len(before))
    budget = WorkBudget(len(before))
    try:
        with values.collector_paused(values.LARGE_BYTES + 1):  # a patch can make a small value large
            value = _changed(values.decode(before), operation, budget, overlay.max_value_bytes)
            encoded = before
            if not _only_tests(operation):
                encoded = values.encode_bounded(value, max_bytes=overlay.max_value_bytes, before=before)
            del value
    finally:
        overlay.work_bytes += budget.spent
    return _write(overlay, current, current.key, encoded, operation.ttl)


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


def _only_tests(operation: Delete | MergePatch | JsonPatch) -> bool:
    """Whether the update leaves the value as it is, so that it need not be encoded again."""
    return isinstance(operation, JsonPatch) and all(step.op == "test" for step in operation.steps)


def _changed(value: Json, operation: Delete | MergePatch | JsonPatch, budget: WorkBudget, max_bytes: int) -> Json:
    """The new value after a partial update. It may reuse and change `value`."""
    if isinstance(operation, MergePatch):
        return values.merge_patch(value, operation.patch, budget)
    if isinstance(operation, JsonPatch):
        return values.json_patch(value, operation.steps, max_bytes=max_bytes, budget=budget)
    assert operation.path
    smaller = values.remove_at(value, operation.path)
    if not names_revisions(operation.condition) and isinstance(values.get_at(smaller, operation.path[:-1]), list):
        # A proxy may repeat a DELETE whose response was lost (RFC 9110, section 9.2.2). The second DELETE would remove
        # the next element. This check comes after `remove_at`, which refuses paths that do not exist.
        raise ServiceError(
            "precondition_required",
            "to remove an element of a list, send If-Match with the entry's ETag, or use a JSON patch",
        )
    return smaller
