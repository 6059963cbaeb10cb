"""One batch: each operation is decided in order, on what those before it have left.

A refused operation changes nothing and does not disturb its neighbours. To add an operation, add its struct in
`model.operations`, its rule in a file of this package, and its branches in `names_of` and `_apply`.
"""

from collections.abc import Sequence

from leasehold.errors import ServiceError
from leasehold.model import (
    ENTRY,
    LEASE,
    Acquire,
    AnyKind,
    Change,
    Expire,
    Expired,
    LockOperation,
    Operation,
    Outcome,
    Put,
    Release,
    Renew,
    Touched,
    Unchanged,
    View,
    is_expired,
    name_of,
)
from leasehold.rules import entries, leases
from leasehold.rules.overlay import EnoughError, Overlay


def evaluate(
    operations: Sequence[Operation], view: View, revision: int, now: int, *, max_value_bytes: int
) -> tuple[list[Outcome | ServiceError], list[Change]]:
    """Decide a batch: one outcome for each operation, in order, and the last state of each name that changed.

    `revision` is the head before the batch; each change takes the next one. `now` is in microseconds. The changes
    are in the order of their revisions, so the last one's is the new head.

    There may be fewer outcomes than operations, though at least one: the batch ends before the partial update by
    which it would take too long (MAX_BATCH_WORK_BYTES). What is behind it has changed nothing and is asked again.
    """
    overlay = Overlay(view, revision, now, max_value_bytes)
    outcomes: list[Outcome | ServiceError] = []
    outcome: Outcome | ServiceError
    for operation in operations:
        try:
            outcome = apply(overlay, operation)
        except ServiceError as refusal:
            outcome = refusal
        except EnoughError:
            break
        except Exception as failure:  # noqa: BLE001 - it changed nothing, so it concerns no other operation
            outcome = _unforeseen(operation, failure)
        outcomes.append(outcome)
    return outcomes, overlay.changes()


def touched(operations: Sequence[Operation]) -> Touched:
    """What `evaluate` will look at."""
    plain = [operation.key for operation in operations if type(operation) is Put and operation.lease_id is None]
    if len(plain) == len(operations):  # nearly always
        return Touched({ENTRY: plain})
    names: dict[AnyKind, list[str]] = {}
    lookups: dict[AnyKind, list[str]] = {}
    for operation in operations:
        for kind, name in names_of(operation):
            names.setdefault(kind, []).append(name)
        for kind, value in lookups_of(operation):
            lookups.setdefault(kind, []).append(value)
    return Touched(names, lookups)


def names_of(operation: Operation) -> Sequence[tuple[AnyKind, str]]:
    """The names of records that an operation looks at."""
    if isinstance(operation, LockOperation):
        return ((LEASE, operation.lock),)
    if isinstance(operation, Expire):
        return ((operation.kind, operation.name),)
    return ((ENTRY, operation.key),)


def lookups_of(operation: Operation) -> Sequence[tuple[AnyKind, str]]:
    """The records that an operation looks at by the value of `Kind.lookup`: the lease of a fenced write."""
    if isinstance(operation, LockOperation | Expire) or operation.lease_id is None:
        return ()
    return ((LEASE, operation.lease_id),)


def apply(overlay: Overlay, operation: Operation) -> Outcome:
    """Decide one operation. Raises ServiceError for a refusal."""
    if isinstance(operation, Put):  # nearly always
        return entries.put(overlay, operation)
    if isinstance(operation, Acquire):
        return leases.acquire(overlay, operation)
    if isinstance(operation, Renew):
        return leases.renew(overlay, operation)
    if isinstance(operation, Release):
        return leases.release(overlay, operation)
    if isinstance(operation, Expire):
        return _expire(overlay, operation)
    return entries.change(overlay, operation)


def _expire(overlay: Overlay, operation: Expire) -> Expired | Unchanged:
    """A record of any kind, removed once it has expired."""
    kind, name = operation.kind, operation.name
    record = overlay.stored(kind, name)  # type: ignore[misc] # one of several kinds
    if record is None or not is_expired(record, overlay.now):
        return Unchanged()
    expired = Expired(overlay.next_revision())
    overlay.put(kind, name, kind.removal(name, expired.revision))
    return expired


def _unforeseen(operation: Operation, failure: Exception) -> ServiceError:
    """An exception where no rule raises one: of what is stored under this name, or a fault of the service."""
    error = ServiceError(
        "internal",
        "the service failed; nothing was changed",
        details={"lock" if isinstance(operation, LockOperation) else "key": name_of(operation)},
    )
    error.__cause__ = failure
    return error
