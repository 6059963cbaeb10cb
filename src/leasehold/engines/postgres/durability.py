"""Warnings for settings of the database that can lose acknowledged changes."""

from typing import Final

import structlog

from leasehold.engines.postgres.links import Connection

log = structlog.get_logger(__name__)

_LOSSES: Final = {
    "off": "a crash of it loses acknowledged changes",
    "local": "no commit waits for a synchronous standby, so a failover may lose acknowledged changes",
    "remote_write": "a synchronous standby that crashes may lose acknowledged changes",
}
"""What may be lost, by the values of synchronous_commit that do not wait for a sync here and on the standbys."""


async def check_durability(connection: Connection) -> None:
    """Log a warning for each setting that can lose acknowledged changes."""
    if await connection.fetchval("SHOW fsync") == "off":
        log.warning("fsync is off in PostgreSQL: a crash of its machine loses data")
    waits_for = await connection.fetchval("SHOW synchronous_commit")
    if waits_for in _LOSSES:
        log.warning(f"synchronous_commit is {waits_for} in PostgreSQL: {_LOSSES[waits_for]}")
