"""Decides one batch. Operations are decided in order; each sees the changes of the ones before it.

A refused operation changes nothing and does not affect the others. To add an operation, add its struct in
`model.operations`, its rule in a file of this package, and its branches in `names_of` and `apply`.
"""

from collections.abc import Sequence

from leasehold.errors import ErrorDetail, ServiceError
from leasehold.model import (
    ENTRY,
    LEASE,
    RECEIPT,
    Acquire,
    AnyKind,
    Change,
    DeleteEach,
    DeleteState,
    Expire,
    Expired,
    Forget,
    Increment,
    Keyed,
    LockOperation,
    LockState,
    Operation,
    Outcome,
    Put,
    Release,
    Renew,
    SaveState,
    StateOperation,
    Touched,
    Transaction,
    Unchanged,
    UnlockState,
    View,
    is_expired,
    name_of,
)
from leasehold.rules import entries, leases, plain_puts, quotas, receipts, terraform, transactions
from leasehold.rules.overlay import BatchLimitError, Overlay

# Made once, because to make a union takes longer than to check it.
_Cleaning = Expire | Forget
_Rare = DeleteEach | StateOperation
_Unfenced = LockOperation | StateOperation | Expire | Forget


def evaluate(
    operations: Sequence[Operation], view: View, revision: int, now: int, *, max_value_bytes: int
) -> tuple[list[Outcome | ServiceError], list[Change]]:
    """Decide a batch: one outcome for each operation, in order, and the last state of each name that changed.

    `revision` is the head before the batch; each operation that changes something takes the next one. `now` is in
    microseconds. The changes are in the order of their revisions, so the last one has the new head.

    There may be fewer outcomes than operations, but at least one: the batch ends before a partial update or a
    transaction that would exceed MAX_BATCH_WORK_BYTES. The operations from there on have changed nothing and must be
    submitted again.
    """
    quota = view.quota
    plain = None
    try:
        if quota is None or quotas.has_room_for_all(operations, view.usage, quota):
            plain = plain_puts.put_all(operations, view, revision, now, max_value_bytes=max_value_bytes)
    except Exception:  # noqa: BLE001 - the general rule, below, finds the operation that is the cause
        plain = None
    if plain is not None:
        return plain
    if quota is None:
        overlay = Overlay(view, revision, now, max_value_bytes)
    else:
        overlay = quotas.LimitedOverlay(view, revision, now, max_value_bytes, quota)
    outcomes: list[Outcome | ServiceError] = []
    outcome: Outcome | ServiceError
    for operation in operations:
        try:
            outcome = apply(overlay, operation)
        except ServiceError as refusal:
            outcome = refusal
        except BatchLimitError:
            break
        except Exception as failure:  # noqa: BLE001 - it changed nothing, so it does not affect other operations
            outcome = _internal_error(operation, failure)
        outcomes.append(outcome)
    return outcomes, overlay.changes()


def touched(operations: Sequence[Operation]) -> Touched:
    """The records that `evaluate` reads."""
    plain = [operation.key for operation in operations if type(operation) is Put and operation.lease_id is None]
    if len(plain) == len(operations):  # nearly always
        return Touched({ENTRY: plain})
    names: dict[AnyKind, list[str]] = {}
    lookups: dict[AnyKind, list[str]] = {}
    for operation in operations:
        if isinstance(operation, LockOperation):  # frequent, and the loops below take three times as long
            names.setdefault(LEASE, []).append(operation.lock)
            continue
        for kind, name in names_of(operation):
            names.setdefault(kind, []).append(name)
        for kind, value in lookups_of(operation):
            lookups.setdefault(kind, []).append(value)
    return Touched(names, lookups)


def names_of(operation: Operation) -> Sequence[tuple[AnyKind, str]]:
    """The names of the records that an operation reads."""
    if isinstance(operation, Transaction):
        return transactions.names_in(operation)
    if isinstance(operation, LockOperation):
        return ((LEASE, operation.lock),)
    if isinstance(operation, Expire):
        return ((operation.kind, operation.name),)
    if isinstance(operation, Keyed):
        return ((RECEIPT, operation.receipt), *names_of(operation.operation))
    if isinstance(operation, Forget):
        return [(RECEIPT, name) for name in operation.receipts]
    if isinstance(operation, DeleteEach):
        return [(ENTRY, key) for key in operation.keys]
    if isinstance(operation, StateOperation):
        return terraform.names_in(operation)
    return ((ENTRY, operation.key),)


def lookups_of(operation: Operation) -> Sequence[tuple[AnyKind, str]]:
    """The records that an operation reads by the value of `Kind.lookup`: the lease of a fenced write."""
    if isinstance(operation, Transaction):
        return transactions.lookups_in(operation)
    if isinstance(operation, Keyed):
        return lookups_of(operation.operation)
    if isinstance(operation, _Unfenced) or operation.lease_id is None:
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
    if isinstance(operation, _Cleaning):
        return _expire(overlay, operation)
    if isinstance(operation, Increment):
        return entries.increment(overlay, operation)
    if isinstance(operation, Transaction):
        return transactions.transact(overlay, operation)
    if isinstance(operation, Keyed):
        return receipts.once(overlay, operation, apply)
    if isinstance(operation, _Rare):
        return _apply_rare(overlay, operation)
    return entries.change(overlay, operation)


def _apply_rare(overlay: Overlay, operation: _Rare) -> Outcome:
    if isinstance(operation, DeleteEach):
        return entries.delete_each(overlay, operation)
    if isinstance(operation, SaveState):
        return terraform.save(overlay, operation)
    if isinstance(operation, DeleteState):
        return terraform.delete(overlay, operation)
    if isinstance(operation, LockState):
        return terraform.lock(overlay, operation)
    return terraform.unlock(overlay, operation)


def _expire(overlay: Overlay, operation: _Cleaning) -> Expired | Unchanged:
    """Remove a record of any kind if it has expired, or receipts."""
    if isinstance(operation, Forget):
        return receipts.forget(overlay, operation)
    kind, name = operation.kind, operation.name
    record = overlay.stored(kind, name)  # type: ignore[misc] # one of several kinds
    if record is None or not is_expired(record, overlay.now):
        return Unchanged()
    expired = Expired(overlay.next_revision())
    overlay.put(kind, name, kind.removal(name, expired.revision))
    return expired


def _internal_error(operation: Operation, failure: Exception) -> ServiceError:
    """The error for an exception that is not a refusal: because of the stored record, or of a fault in the service."""
    details: dict[str, ErrorDetail] = {}
    if isinstance(operation, Keyed):
        operation = operation.operation
    if not isinstance(operation, Transaction | Forget | DeleteEach):
        is_of_lock = isinstance(operation, LockOperation | LockState | UnlockState)
        details["lock" if is_of_lock else "key"] = name_of(operation)
    error = ServiceError("internal", "the service failed; nothing was changed", details=details)
    error.__cause__ = failure
    return error
