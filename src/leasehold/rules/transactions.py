"""Transactions: checks and operations that are decided together. All changes are made, at one revision, or none.

The checks are decided before the first operation. Operations are decided in order, each on the changes of those before
it. They use the same rules as operations outside of a transaction. To add an operation, add it to `_apply`.
"""

from collections.abc import Iterator

import msgspec

from leasehold import values
from leasehold.errors import ErrorDetail, ServiceError
from leasehold.limits import MAX_BATCH_WORK_BYTES, MAX_PARTS_BYTES
from leasehold.model import (
    ENTRY,
    LEASE,
    AnyKind,
    Binary,
    Committed,
    Deleted,
    Entry,
    EntryCheck,
    EntryOperation,
    ExistenceCheck,
    Found,
    Increment,
    Json,
    LeaseCheck,
    Missing,
    Put,
    Read,
    RevisionCheck,
    Transaction,
    Written,
    keys_in,
)
from leasehold.rules import entries
from leasehold.rules.fences import check_fence
from leasehold.rules.overlay import BatchLimitError, Overlay, Staging
from leasehold.rules.value_checks import holds
from leasehold.values.budgets import DECISION_WORK_BYTES, SHOWN_BYTES_FOR_ONE_BYTE
from leasehold.values.entry_text import partial_entry_json

Failed = dict[str, ErrorDetail]
"""A check that failed, as the caller is told: `index`, and `key` and `revision`, or `error`."""


def transact(overlay: Overlay, transaction: Transaction) -> Committed:
    """Decide a transaction. Raises ServiceError for a refusal.

    `precondition_failed` has all `failed` checks; the error of an operation has its `index`.
    """
    staged = Staging(overlay)
    work_before = overlay.work_bytes
    decisions = DECISION_WORK_BYTES * (len(transaction.checks) + len(transaction.operations))
    if work_before and work_before + decisions > MAX_BATCH_WORK_BYTES:
        raise BatchLimitError
    try:
        if transaction.lease_id is not None:
            check_fence(staged, transaction.lease_id)
        _check(staged, transaction)
        committed = _do(staged, transaction)
        staged.keep()
        return committed
    except BatchLimitError:
        if work_before:
            raise
        # It is too much for any batch.
        raise ServiceError(
            "too_large",
            "the transaction takes too much work; change fewer large values in part, or replace them",
            details={"limit": MAX_BATCH_WORK_BYTES},
        ) from None
    finally:
        # What is shown only ends the batch. It is never the reason for a refusal: it has limits of its own.
        overlay.work_bytes = staged.work_bytes + decisions + staged.shown_bytes // SHOWN_BYTES_FOR_ONE_BYTE


def names_in(transaction: Transaction) -> list[tuple[AnyKind, str]]:
    """The records that a transaction reads by name."""
    return [(ENTRY, key) for key in keys_in(transaction)]


def lookups_in(transaction: Transaction) -> list[tuple[AnyKind, str]]:
    """The leases that it reads by their `lease_id`."""
    own = [] if transaction.lease_id is None else [transaction.lease_id]
    checked = [check.lease_id for check in transaction.checks if isinstance(check, LeaseCheck)]
    return [(LEASE, lease_id) for lease_id in own + checked]


# Operations ---------------------------------------------------------------------------------------------------


def _do(overlay: Staging, transaction: Transaction) -> Committed:
    before = revision = overlay.revision
    results: list[Written | Deleted | Found | Missing] = []
    for index, operation in enumerate(transaction.operations):
        overlay.revision = before  # so all changes get the same revision
        try:
            result = _apply(overlay, operation)
            if isinstance(result, Found):
                _count_read(overlay, result.entry)
        except ServiceError as refusal:
            raise _of_operation(refusal, index, operation.key) from refusal
        results.append(result)
        revision = max(revision, overlay.revision)
    overlay.revision = revision
    return Committed(revision, tuple(results))


def _apply(overlay: Overlay, operation: EntryOperation | Read) -> Written | Deleted | Found | Missing:
    if isinstance(operation, Put):
        written = entries.put(overlay, operation)
        # The caller has sent this part.
        return written if written.part is None else Written(written.entry, written.created, written.path)
    if isinstance(operation, Increment):
        return entries.increment(overlay, operation)
    if isinstance(operation, Read):
        return _read(overlay, operation.key)
    return entries.change(overlay, operation)


def _read(overlay: Overlay, key: str) -> Found | Missing:
    entry = overlay.live(ENTRY, key)
    if entry is None:
        return Missing(key)
    if not entry.value and not isinstance(entry.value, Binary):
        raise values.unreadable(key=key)
    return Found(entry)


def _count_read(overlay: Staging, entry: Entry) -> None:
    """Count the size of all values that were read. Raises `too_large`, but not for a single one."""
    before = overlay.shown_bytes
    overlay.shown_bytes += len(entry.value)
    if before and overlay.shown_bytes > MAX_PARTS_BYTES:
        raise ServiceError(
            "too_large",
            f"the values that the transaction reads are together larger than {MAX_PARTS_BYTES} bytes",
            details={"limit": MAX_PARTS_BYTES},
        )


def _of_operation(refusal: ServiceError, index: int, key: str) -> ServiceError:
    """The refusal of an operation, with its place in the transaction."""
    return ServiceError(
        refusal.code,
        f"operation {index}: {refusal.message}",
        details={**refusal.details, "index": index, "key": key},
        headers=refusal.headers,
        status=refusal.status,
        reason=refusal.reason,
    )


# Checks -------------------------------------------------------------------------------------------------------


def _check(overlay: Staging, transaction: Transaction) -> None:
    """Raise `precondition_failed` with all checks that do not hold."""
    checking = _Checking(overlay)
    failed = list(checking.failed(transaction))
    if failed:
        noun = "check" if len(failed) == 1 else "checks"
        raise ServiceError("precondition_failed", f"{len(failed)} {noun} failed", details={"failed": failed})


class _Checking:
    """The checks of one transaction. Each value is decoded once."""

    def __init__(self, overlay: Staging) -> None:
        self._overlay = overlay
        self._decoded: dict[str, Json] = {}
        self._counted: set[str] = set()
        """Keys whose values count as work."""

    def failed(self, transaction: Transaction) -> Iterator[Failed]:
        """The checks that do not hold, in their order."""
        for index, check in enumerate(transaction.checks):
            if isinstance(check, LeaseCheck):
                if self._overlay.live_by_lookup(LEASE, check.lease_id) is None:
                    yield {"index": index, "error": "lease_lost"}
                continue
            entry = self._overlay.live(ENTRY, check.key)
            if not self._holds(check, entry):
                revision = None if entry is None else entry.revision
                shown: Failed = {"index": index, "key": check.key, "revision": revision}
                if transaction.shows_current:
                    shown["current"] = None if entry is None else msgspec.Raw(self._current(entry))
                yield shown

    def _holds(self, check: EntryCheck, entry: Entry | None) -> bool:
        if isinstance(check, RevisionCheck):
            return (None if entry is None else entry.revision) == check.revision
        if entry is None:
            return False
        if isinstance(check, ExistenceCheck):
            return True
        text = entry.value
        if isinstance(text, Binary):
            return False  # bytes are equal to no JSON value
        if entry.key not in self._counted:
            self._overlay.begin_work(len(text))
            self._counted.add(entry.key)
        if check.prepared is not None and check.prepared.before == text:
            return check.prepared.holds
        return holds(check, self._value(entry, text))

    def _value(self, entry: Entry, text: bytes) -> Json:
        if entry.key not in self._decoded:
            with values.collector_paused(len(text)):
                self._decoded[entry.key] = values.decode(text)
        return self._decoded[entry.key]

    def _current(self, entry: Entry) -> bytes:
        """The entry as text. Without its value if there is no room for it, or if it is bytes or cannot be read."""
        text = entry.value
        overlay = self._overlay
        if not text or overlay.shown_bytes + len(text) > MAX_PARTS_BYTES:
            return partial_entry_json(entry, value=None, path=None)
        overlay.shown_bytes += len(text)
        return partial_entry_json(entry, value=text, path=None)
