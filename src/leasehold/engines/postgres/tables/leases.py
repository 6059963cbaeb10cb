"""The table of leases."""

from collections.abc import Sequence
from typing import Final

from leasehold.engines.postgres.tables.table import Column, Table
from leasehold.model import LEASE, Lease
from leasehold.values import is_json


def record(
    lock: str,
    lease_id: str,
    token: int,
    revision: int,
    acquired_at: int,
    expires_at: int,
    ttl: int,
    holder: str,
    owner: str,
) -> Lease:
    """The lease of a row. An owner that is not JSON is read as null."""
    given = owner.encode()
    if not is_json(given):
        given = b"null"
    return Lease(lock, lease_id, token, revision, acquired_at, expires_at, ttl, holder, given)


def values(leases: Sequence[Lease]) -> tuple[Sequence[object] | None, ...]:
    """See `Table.values`."""
    return (
        [each.lock for each in leases],
        [each.lease_id for each in leases],
        [each.token for each in leases],
        [each.revision for each in leases],
        [each.acquired_at for each in leases],
        [each.expires_at for each in leases],
        [each.ttl for each in leases],
        [each.holder for each in leases],
        [each.owner.decode() for each in leases],
    )


TABLE: Final = Table(
    kind=LEASE,
    name="locks",
    columns=(
        Column("lock_id", "text"),
        Column("lease_id", "text"),
        Column("token", "bigint"),
        Column("revision", "bigint"),
        Column("locked_at", "timestamptz"),
        Column("expires_at", "timestamptz"),
        Column("ttl", "bigint"),
        Column("holder", "text"),
        Column("owner", "text"),
    ),
    record=record,
    values=values,
    lookup="lease_id",
    is_contended=True,
)
