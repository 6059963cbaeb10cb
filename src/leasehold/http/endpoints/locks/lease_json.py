"""A lease as its holder sees it, and a lock as every other caller sees it: JSON."""

import msgspec

from leasehold.model import Lease
from leasehold.times import format_time

_SECOND = 1_000_000


def lease_json(lease: Lease) -> bytes:
    """For the holder: `{"lock":…,"lease_id":…,"token":…,"owner":…,"acquired_at":…,"expires_at":…,"ttl":…}`."""
    return msgspec.json.encode({"lock": lease.lock, "lease_id": lease.lease_id, **_facts(lease)})


def lock_json(lease: Lease, waiters: int) -> bytes:
    """For every caller: without `lease_id`, which would allow it to end the lease, and with `waiters`."""
    return msgspec.json.encode({"lock": lease.lock, **_facts(lease), "waiters": waiters})


def holder_json(lease: Lease) -> bytes:
    """For a holder that knows the lock by another ID: without `lease_id` and without `waiters`."""
    return msgspec.json.encode({"lock": lease.lock, **_facts(lease)})


def _facts(lease: Lease) -> dict[str, object]:
    seconds, rest = divmod(lease.ttl, _SECOND)
    return {
        "token": lease.token,
        "owner": msgspec.Raw(lease.owner),
        "acquired_at": format_time(lease.acquired_at),
        "expires_at": format_time(lease.expires_at),
        "ttl": lease.ttl / _SECOND if rest else seconds,
    }
