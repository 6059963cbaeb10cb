"""What a caller who may write and not read is told: whether the write was done, and nothing about what is stored.

It learns whether an entry exists, whether it is at the revision that the caller names, and whether a partial change
fits it: a write cannot be done or refused without telling that. It learns no value, no part of one, no other caller's
`owner`, no revision but that of its own write, and not which step or which part of a path did not fit. Answers are
reduced in `entries.written_response`, errors here.
"""

from typing import Final

from leasehold.access.permissions import Principal
from leasehold.errors import ErrorCode, ServiceError

_NOT_FITTING: Final[frozenset[ErrorCode]] = frozenset(("path_not_found", "conflict", "patch_failed"))


def may_read(principal: Principal) -> bool:
    return "read" in principal.permissions


def withheld(error: ServiceError) -> ServiceError:
    """The error without what it says of stored content."""
    if error.code in _NOT_FITTING:
        return ServiceError("conflict", "the change does not fit what is stored")
    if error.code == "precondition_failed":
        return ServiceError("precondition_failed", "the entry is not as the precondition asks")
    if error.code == "lock_held":
        # When to come again, and not who holds the lock.
        return ServiceError("lock_held", error.message, headers=error.headers)
    return error
