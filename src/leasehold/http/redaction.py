"""What is left out of responses to a caller with the permission `write` but not `read`.

Such a caller learns whether its write was done, whether the entry exists, whether the entry is at the revision that the
caller sent, and whether a partial change could be applied. A write cannot be confirmed or refused without that. It
learns no value and no part of one, no `owner` of another caller, no revision except that of its own write, and not
which step or which part of a path failed.

This module redacts errors. `endpoints/kv/written_entry.py` redacts the responses of writes.
"""

from typing import Final

from leasehold.access.permissions import Principal
from leasehold.errors import ErrorCode, ErrorDetail, ServiceError

_PLACE: Final = ("index", "key")
"""Which operation of a transaction was refused."""
_SHOW_STORED_CONTENT: Final[frozenset[ErrorCode]] = frozenset(
    ("path_not_found", "conflict", "patch_failed", "precondition_required")
)


def may_read(principal: Principal) -> bool:
    return "read" in principal.permissions


def redacted(error: ServiceError) -> ServiceError:
    """The error without what it says about stored content."""
    if error.code in _SHOW_STORED_CONTENT:
        place = {name: error.details[name] for name in _PLACE if name in error.details}
        return ServiceError("conflict", "the change cannot be applied to the stored value", details=place)
    if error.code == "precondition_failed":
        return ServiceError("precondition_failed", "the entry does not meet the precondition", details=_failed(error))
    if error.code == "lock_held":
        # Keep Retry-After; leave out the details, which show the holder.
        return ServiceError("lock_held", error.message, headers=error.headers)
    return error


def _failed(error: ServiceError) -> dict[str, ErrorDetail]:
    """Which checks of a transaction failed, without revisions and values."""
    failed = error.details.get("failed")
    if not isinstance(failed, list):
        return {}
    shown = ("index", "key", "error")
    return {"failed": [{name: each[name] for name in shown if name in each} for each in failed]}
