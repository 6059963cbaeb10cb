"""All the rules. What is asked, the state and the time go in; what happened and what to write come out.

Nothing here does I/O or reads a clock, so the rules are the same on every engine and can be run again when an engine
must retry. A refused operation changes nothing and does not disturb its neighbours in the batch. To add an
operation, add its struct in `model` and a branch in `_Batch.apply`.
"""

from collections.abc import Sequence

from leasehold import values
from leasehold.errors import ServiceError, not_found
from leasehold.model import (
    Change,
    Condition,
    Delete,
    Deleted,
    Deletion,
    Entry,
    Expire,
    Found,
    Json,
    JsonPatch,
    MergePatch,
    NotModified,
    Operation,
    Outcome,
    Put,
    Read,
    Unchanged,
    View,
    Written,
    is_expired,
)


def evaluate(
    operations: Sequence[Operation], view: View, revision: int, now: int, *, max_value_bytes: int
) -> tuple[list[Outcome | ServiceError], list[Change]]:
    """Decide a batch: one outcome for each operation, in order, and the last state of each key that changed.

    `revision` is the head before the batch; each change takes the next one. `now` is in microseconds. The changes
    are in the order of their revisions, so the last one's is the new head.
    """
    batch = _Batch(view, revision, now, max_value_bytes)
    outcomes: list[Outcome | ServiceError] = []
    for operation in operations:
        try:
            outcomes.append(batch.apply(operation))
        except ServiceError as refusal:
            outcomes.append(refusal)
    return outcomes, list(batch.changed.values())


def evaluate_read(read: Read, entry: Entry | None) -> Found | NotModified:
    """What a read of `entry` (live, or None) gives.

    Raises `not_found`, `path_not_found`, and `precondition_failed` for If-Match.
    """
    if entry is None:
        raise not_found()
    if read.condition is not None:
        if not _matches(read.condition.if_match, entry, otherwise=True):
            raise _precondition_failed(entry)
        if _matches(read.condition.if_none_match, entry, otherwise=False):
            return NotModified(entry.revision)
    if read.paths is None:
        return Found(entry)
    value = values.decode(entry.value)
    return Found(entry, tuple(values.encode(values.get_at(value, path)) for path in read.paths))


class _Batch:
    """The state of one evaluation: what the view shows, under what this batch has changed so far."""

    __slots__ = ("_max_value_bytes", "_now", "_revision", "_view", "changed")

    def __init__(self, view: View, revision: int, now: int, max_value_bytes: int) -> None:
        self._view = view
        self._revision = revision
        self._now = now
        self._max_value_bytes = max_value_bytes
        self.changed: dict[str, Change] = {}

    def apply(self, operation: Operation) -> Outcome:
        current = self._live(operation.key)
        if type(operation) is Put:
            if operation.condition is not None:
                _check(operation.condition, current)
            if operation.path is None:
                return self._write(current, operation.key, operation.value, operation.ttl)
            return self._put_at(current, operation, operation.path)
        if type(operation) is Expire:
            return self._expire(operation)
        # What follows changes something that exists. A missing entry is reported before a failed precondition,
        # because preconditions are for requests that would succeed without them (RFC 9110, section 13.2.1).
        if current is None:
            raise not_found()
        if type(operation) is Delete:
            _check(operation.condition, current)
            if operation.path is None or operation.path == ():
                return self._delete(operation.key)
            value = values.remove_at(values.decode(current.value), operation.path)
            return self._rewrite(current, value, operation.ttl)
        if type(operation) is MergePatch:
            _check(operation.condition, current)
            value = values.merge_patch(values.decode(current.value), operation.patch)
            return self._rewrite(current, value, operation.ttl)
        if type(operation) is JsonPatch:
            _check(operation.condition, current)
            value = values.json_patch(values.decode(current.value), operation.steps, max_bytes=self._max_value_bytes)
            return self._rewrite(current, value, operation.ttl)
        raise TypeError(type(operation).__name__)

    def _stored(self, key: str) -> Entry | None:
        change = self.changed.get(key)
        if change is None:
            return self._view.entry(key)
        return change if type(change) is Entry else None

    def _live(self, key: str) -> Entry | None:
        entry = self._stored(key)
        if entry is None or entry.expires_at is None:  # nearly always
            return entry
        return None if is_expired(entry, self._now) else entry

    def _put_at(self, current: Entry | None, operation: Put, path: tuple[str, ...]) -> Written:
        part = values.decode(operation.value)
        before = values.container_for(path) if current is None else values.decode(current.value)
        value = values.set_at(before, path, part)
        encoded = values.encode_bounded(value, max_bytes=self._max_value_bytes)
        written = self._write(current, operation.key, encoded, operation.ttl)
        return Written(written.entry, written.created, path=path, part=operation.value)

    def _rewrite(self, current: Entry, value: Json, ttl: int | None) -> Written:
        encoded = values.encode_bounded(value, max_bytes=self._max_value_bytes)
        return self._write(current, current.key, encoded, ttl)

    def _write(self, current: Entry | None, key: str, value: bytes, ttl: int | None) -> Written:
        self._revision += 1
        now = self._now
        created_at = now
        if current is not None:
            # The key's own string too, so that a million entries that are overwritten do not keep two each.
            key, created_at = current.key, current.created_at
        expires_at = None if ttl is None else now + ttl
        entry = Entry(key, value, self._revision, created_at, now, expires_at)
        self._record(entry)
        return Written(entry, current is None)

    def _delete(self, key: str) -> Deleted:
        self._revision += 1
        self._record(Deletion(key, self._revision))
        return Deleted(key, self._revision)

    def _record(self, change: Change) -> None:
        self.changed.pop(change.key, None)  # so that `changed` stays in the order of revisions
        self.changed[change.key] = change

    def _expire(self, operation: Expire) -> Deleted | Unchanged:
        entry = self._stored(operation.key)
        if entry is None or not is_expired(entry, self._now):
            return Unchanged()
        return self._delete(operation.key)


def _check(condition: Condition | None, entry: Entry | None) -> None:
    """If-Match and If-None-Match of a change (RFC 9110, section 13.2.2)."""
    if condition is None:
        return
    if not _matches(condition.if_match, entry, otherwise=True):
        raise _precondition_failed(entry)
    if _matches(condition.if_none_match, entry, otherwise=False):
        raise _precondition_failed(entry)


def _matches(wanted: object, entry: Entry | None, *, otherwise: bool) -> bool:
    """Whether `entry` is one of those `wanted`; `otherwise` when nothing was asked."""
    if wanted is None:
        return otherwise
    if entry is None:
        return False
    return wanted == "*" or (isinstance(wanted, tuple) and entry.revision in wanted)


def _precondition_failed(entry: Entry | None) -> ServiceError:
    if entry is None:
        return ServiceError("precondition_failed", "key does not exist", details={"revision": None})
    return ServiceError(
        "precondition_failed",
        "the entry is at another revision",
        details={"revision": entry.revision},
        headers={"ETag": f'"{entry.revision}"'},
    )
