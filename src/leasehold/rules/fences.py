"""The rule that refuses a write under a lease that has ended (a stale lease)."""

from leasehold.errors import ServiceError
from leasehold.model import LEASE
from leasehold.rules.overlay import Overlay


def check_fence(overlay: Overlay, lease_id: str) -> None:
    """Raise `lease_lost` (412) unless the lease is alive at this moment of the batch."""
    if overlay.live_by_lookup(LEASE, lease_id) is None:
        raise lease_lost(status=412)


def lease_lost(*, status: int | None = None) -> ServiceError:
    """The caller's lease has ended or never existed."""
    return ServiceError("lease_lost", "the lease is not alive", status=status)
