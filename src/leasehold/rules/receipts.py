"""The rule of idempotency keys: a request is done once, and its repetition gets the same outcome.

The outcome is kept in a receipt, which is written in the same commit as the change. A request that is refused, or that
changes nothing, leaves no receipt: its repetition is decided again.

A receipt has only what the repetition does not bring along. Its operation is equal to the first one in everything that
its fingerprint covers, so a value that it puts need not be kept. Neither are values that no response shows. A change by
a patch, an increment and a read in a transaction show values that are not in the request, so these are kept.
"""

from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from leasehold.errors import ServiceError
from leasehold.model import (
    RECEIPT,
    Committed,
    Expired,
    Forget,
    JsonPatch,
    Keyed,
    Memo,
    MergePatch,
    Outcome,
    Put,
    Read,
    Receipt,
    ReceiptEnd,
    Replayed,
    RequestedOperation,
    StoredOutcome,
    Transaction,
    Unchanged,
    Written,
    decode_memo,
    encode_memo,
    is_expired,
)
from leasehold.rules.overlay import Overlay, Staging

Decide = Callable[[Overlay, RequestedOperation], Outcome]
AnyOutcome = TypeVar("AnyOutcome", bound=Outcome)


def once(overlay: Overlay, keyed: Keyed, decide: Decide) -> Outcome:
    """`decide` the operation and write its receipt; or, if there is a receipt, repeat its outcome.

    Raises `idempotency_key_reused`, and what `decide` raises.
    """
    receipt = overlay.live(RECEIPT, keyed.receipt)
    if receipt is not None:
        return replayed(receipt, keyed)
    staged = Staging(overlay)
    try:
        outcome = decide(staged, keyed.operation)
        if staged.revision == overlay.revision or not isinstance(outcome, StoredOutcome):
            return outcome
        memo = encode_memo(Memo(keyed.fingerprint, _abridged(outcome, keyed.operation)))
        kept = Receipt(keyed.receipt, memo, staged.revision, overlay.now + keyed.ttl)
        staged.put(RECEIPT, keyed.receipt, kept)
    finally:
        overlay.work_bytes = staged.work_bytes
    staged.keep()
    return outcome


def replayed(receipt: Receipt, keyed: Keyed) -> Replayed:
    """The outcome that the receipt keeps. Raises `idempotency_key_reused` if it belongs to another request."""
    memo = decode_memo(receipt.memo)
    if memo.fingerprint != keyed.fingerprint:
        raise ServiceError(
            "idempotency_key_reused",
            "this Idempotency-Key was sent with another request; repeat that one unchanged, or use a new key",
        )
    return Replayed(_restored(memo.outcome, keyed.operation))


def forget(overlay: Overlay, operation: Forget) -> Expired | Unchanged:
    """Remove receipts, all at one revision: each takes no revision of its own from the history of entries."""
    ended = []
    for name in operation.receipts:
        receipt = overlay.stored(RECEIPT, name)
        if receipt is not None and (receipt.revision <= operation.up_to or is_expired(receipt, overlay.now)):
            ended.append(name)
    if not ended:
        return Unchanged()
    staged = Staging(overlay)
    expired = Expired(staged.next_revision())
    for name in ended:
        staged.put(RECEIPT, name, ReceiptEnd(name, expired.revision))
    staged.keep()
    return expired


# What a receipt keeps -----------------------------------------------------------------------------------------


def _abridged(outcome: StoredOutcome, operation: RequestedOperation) -> StoredOutcome:
    if isinstance(outcome, Committed):
        results = (_without_value(each) if isinstance(each, Written) else each for each in outcome.results)
        return replace(outcome, results=tuple(results))
    if isinstance(outcome, Written) and not isinstance(operation, MergePatch | JsonPatch):
        outcome = _without_value(outcome)
        return replace(outcome, part=None) if isinstance(operation, Put) else outcome
    return outcome


def _without_value(written: Written) -> Written:
    return replace(written, entry=replace(written.entry, value=b""))


def _restored(outcome: StoredOutcome, operation: RequestedOperation) -> StoredOutcome:
    """The outcome with what `_abridged` left out and a response needs."""
    if isinstance(outcome, Committed):
        assert isinstance(operation, Transaction)
        results = map(_with_value, outcome.results, operation.operations)
        return replace(outcome, results=tuple(results))
    if isinstance(outcome, Written) and isinstance(operation, Put) and outcome.path is not None:
        return replace(outcome, part=operation.value)
    return _with_value(outcome, operation)


def _with_value(outcome: AnyOutcome, operation: RequestedOperation | Read) -> AnyOutcome:
    """The outcome with the whole value that the operation puts, if it puts one. Of bytes, a response shows the size."""
    if isinstance(outcome, Written) and isinstance(operation, Put) and not operation.path:
        return replace(outcome, entry=replace(outcome.entry, value=operation.value))
    return outcome
