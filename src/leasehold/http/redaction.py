"""What is left out of responses to a caller with the permission `write` but not `read`.

Such a caller learns whether its write was done, whether the entry exists, whether the entry is at the revision that the
caller sent, and whether a partial change could be applied. A write cannot be confirmed or refused without that. It
learns no value and no part of one, no `owner` of another caller, no revision except that of its own write, and not
which step or which part of a path failed.

This module redacts errors. `endpoints/kv/written_entry.py` redacts the responses of writes.
"""

from typing import Final

from leasehold.access.permissions import Principal
from leasehold.errors import ErrorCode, ServiceError

_SHOW_STORED_CONTENT: Final[frozenset[ErrorCode]] = frozenset(
    ("path_not_found", "conflict", "patch_failed", "precondition_required")
)


def may_read(principal: Principal) -> bool:
    return "read" in principal.permissions


def redacted(error: ServiceError) -> ServiceError:
    """The error without what it says about stored content."""
    if error.code in _SHOW_STORED_CONTENT:
        return ServiceError("conflict", "the change cannot be applied to the stored value")
    if error.code == "precondition_failed":
        return ServiceError("precondition_failed", "the entry does not meet the precondition")
    if error.code == "lock_held":
        # Keep Retry-After; leave out the details, which show the holder.
        return ServiceError("lock_held", error.message, headers=error.headers)
    return error
