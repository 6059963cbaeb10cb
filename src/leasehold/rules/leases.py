"""The rules of leases: acquire, renew and release."""

from typing import Final

import msgspec
from msgspec.structs import replace

from leasehold.errors import ServiceError
from leasehold.model import LEASE, Acquire, Held, Lease, Leased, LeaseEnd, Release, Released, Renew
from leasehold.rules.fences import lease_lost
from leasehold.rules.overlay import Overlay
from leasehold.times import format_time

_SECOND: Final = 1_000_000


def acquire(overlay: Overlay, operation: Acquire) -> Leased | Held:
    """A new lease, or `Held` with the lease that is alive."""
    live = overlay.live(LEASE, operation.lock)
    if live is not None:
        return Held(live, overlay.now)
    now, token = overlay.now, overlay.next_revision()
    lease = Lease(
        operation.lock,
        operation.lease_id,
        token=token,
        revision=token,
        acquired_at=now,
        expires_at=now + operation.ttl,
        ttl=operation.ttl,
        holder=operation.holder,
        owner=operation.owner,
    )
    return _keep(overlay, lease)


def renew(overlay: Overlay, operation: Renew) -> Leased:
    """The lease with its new expiry."""
    live = overlay.live(LEASE, operation.lock)
    # An expired lease cannot be renewed, even if nobody acquired the lock: the holder did not hold it all the time.
    if live is None or live.lease_id != operation.lease_id:
        raise lease_lost()
    ttl = live.ttl if operation.ttl is None else operation.ttl
    expires_at = max(live.expires_at, overlay.now + ttl)
    return _keep(overlay, replace(live, revision=overlay.next_revision(), expires_at=expires_at, ttl=ttl))


def release(overlay: Overlay, operation: Release) -> Released:
    """End a lease that is alive."""
    live = overlay.live(LEASE, operation.lock)
    if live is None:
        raise lock_not_found()
    _check_release(operation, live)
    end = LeaseEnd(live.lock, overlay.next_revision())
    released = Released(end.lock, end.revision)
    overlay.put(LEASE, end.lock, end)
    return released


def _keep(overlay: Overlay, lease: Lease) -> Leased:
    leased = Leased(lease, overlay.now)
    overlay.put(LEASE, lease.lock, lease)
    return leased


def _check_release(release: Release, lease: Lease) -> None:
    """A release needs the `lease_id`; or the caller is the holder and names the lease by its token; or it is forced."""
    if release.is_forced:
        return
    if release.lease_id is None:
        if release.holder != lease.holder:
            raise ServiceError(
                "forbidden", "another caller acquired the lock; give its lease_id", reason="another caller's lease"
            )
        # The holder alone does not identify a lease: callers may share a subject, and without tokens all have the same.
        is_meant = release.token == lease.token
    else:
        is_meant = release.lease_id == lease.lease_id and release.token in (None, lease.token)
    if not is_meant:
        raise lease_lost()


def lock_not_found() -> ServiceError:
    """No lease on the lock is alive."""
    return ServiceError("lock_not_found", "no lease on the lock is alive")


def lock_held(held: Held) -> ServiceError:
    """The error for a caller that does not wait, or has waited long enough. It does not reveal the `lease_id`."""
    lease = held.lease
    seconds = -(-(lease.expires_at - held.now) // _SECOND)
    return ServiceError(
        "lock_held",
        "another lease on the lock is alive",
        details={"owner": msgspec.Raw(lease.owner), "expires_at": format_time(lease.expires_at)},
        headers={"Retry-After": str(max(seconds, 1))},
    )
