"""Who gets a lock, how long a lease lasts, and who may end it."""

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
    """The lease, or the one that is alive."""
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
    """The lease with its new end."""
    live = overlay.live(LEASE, operation.lock)
    # Also if the lock was not acquired since: the holder must not believe that it held it all the time.
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
    """A lease is ended with its secret; by its holder, who must say which lease is meant; or by force."""
    if release.is_forced:
        return
    if release.lease_id is None:
        if release.holder != lease.holder:
            raise ServiceError(
                "forbidden", "another caller acquired the lock; give its lease_id", reason="another caller's lease"
            )
        # Callers may share a subject, and all have the same one where no tokens are asked for.
        is_meant = release.token == lease.token
    else:
        is_meant = release.lease_id == lease.lease_id and release.token in (None, lease.token)
    if not is_meant:
        raise lease_lost()


def lock_not_found() -> ServiceError:
    """There is no live lease of the lock."""
    return ServiceError("lock_not_found", "nobody holds the lock")


def lock_held(held: Held) -> ServiceError:
    """What a caller is told that does not wait (any longer). The secret `lease_id` stays with its holder."""
    lease = held.lease
    seconds = -(-(lease.expires_at - held.now) // _SECOND)
    return ServiceError(
        "lock_held",
        "another lease on the lock is alive",
        details={"owner": msgspec.Raw(lease.owner), "expires_at": format_time(lease.expires_at)},
        headers={"Retry-After": str(max(seconds, 1))},
    )
