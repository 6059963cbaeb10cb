"""The rule that refuses a write under a lease that has ended (a stale lease)."""

from typing import Final

from leasehold.errors import ServiceError
from leasehold.model import LEASE
from leasehold.rules.overlay import Overlay

_FENCED: Final = 412
"""The status of a refused write. Renewing and releasing a lease that is not alive is refused with another one."""
_LATE_SAVE: Final = "a state is saved under a lock that is no longer held"


def check_fence(overlay: Overlay, lease_id: str) -> None:
    """Raise `lease_lost` (412) unless the lease is alive at this moment of the batch."""
    if overlay.live_by_lookup(LEASE, lease_id) is None:
        raise lease_lost(status=_FENCED)


def refused_by_fence(error: ServiceError) -> bool:
    """Whether a write, or a transaction with a check of a lease, was refused because the lease is not alive."""
    if error.code == "lease_lost":
        return error.status == _FENCED or error.reason == _LATE_SAVE
    failed = error.details.get("failed")
    return isinstance(failed, list) and any(check.get("error") == "lease_lost" for check in failed)


def lease_lost(message: str = "the lease is not alive", *, status: int | None = None) -> ServiceError:
    """The caller's lease has ended or never existed."""
    return ServiceError("lease_lost", message, status=status)


def late_save() -> ServiceError:
    """The refusal of a write of a Terraform state under a lock that the caller does not hold (any more).

    Terraform needs another status than 412.
    """
    return ServiceError(
        "lease_lost", "the lock with this ID is not held (any more); nothing was stored", reason=_LATE_SAVE
    )
