"""Distributes the tables by namespace over the nodes of a database, with the extension Citus (`leasehold distribute`).

A namespace is then on one node, with all its tables. The table of the migrations is on every node. What is distributed
already stays as it is, so this may be repeated after an interruption, and is repeated after each update of Leasehold:
only here are tables migrated that are distributed, because Citus takes that only at the coordinator.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from leasehold.engines.postgres import head_statements, schema
from leasehold.engines.postgres.failures import FAILURES, as_start_error
from leasehold.engines.postgres.links import DISTRIBUTING_EXTENSION, Address, Connection, time_limit
from leasehold.errors import unavailable
from leasehold.namespaces import DEFAULT_NAMESPACE

WHOLE_SECONDS: Final = 3_600.0
"""The time limit for a statement, which may copy all rows of a table to the nodes."""
MAX_RECOVERY_MILLISECONDS: Final = 1_000
"""The longest sensible citus.recover_2pc_interval. A commit on a node that was killed may be invisible for as long."""

_INSTALLED: Final = "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = $1)"
_IS_COORDINATOR: Final = "SELECT citus_is_coordinator()"
_DISTRIBUTE_FIRST: Final = "SELECT create_distributed_table($1::text::regclass, 'namespace')"
_DISTRIBUTE: Final = "SELECT create_distributed_table($1::text::regclass, 'namespace', colocate_with := $2)"
_COPY_TO_EVERY_NODE: Final = "SELECT create_reference_table($1::text::regclass)"
_REMOVE_LOCAL_ROWS: Final = "SELECT truncate_local_data_after_distributing_table($1::text::regclass)"
"""A table keeps the rows that it had before it was distributed. Nothing reads them."""
_RECOVERY_INTERVAL: Final = """
    SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'citus.recover_2pc_interval'
"""


class Distributed(NamedTuple):
    """`tables` were distributed now, the others before. `recovery_milliseconds`: what Citus is set to, if known."""

    tables: Sequence[str]
    recovery_milliseconds: int | None


async def distribute(url: str, *, now: int) -> Distributed:
    """Create or migrate the tables, and distribute those that are not distributed yet. No server may be running.

    `url` is that of the coordinator. All of it is one transaction. Raises ServiceError.
    """
    try:
        connection = await Address(url).connect()
    except (*FAILURES, ValueError) as failure:
        raise as_start_error(failure) from failure
    try:
        with time_limit(connection, WHOLE_SECONDS):
            await _check(connection)
            await connection.execute(head_statements.NO_IDLE_TIMEOUT)
            await schema.deploy(connection, schema.load_scripts(), now=now, may_migrate_distributed=True)
            tables = await _distribute(connection)
            for table in tables:
                await connection.execute(_REMOVE_LOCAL_ROWS, table)
            return Distributed(tables, await connection.fetchval(_RECOVERY_INTERVAL))
    except FAILURES as failure:
        raise unavailable(f"{as_start_error(failure).message}; run the same command again") from failure
    finally:
        connection.terminate()


async def _check(connection: Connection) -> None:
    """Raise `unavailable` unless this is the coordinator of a database with the extension."""
    if not await connection.fetchval(_INSTALLED, DISTRIBUTING_EXTENSION):
        raise unavailable(f"the database has no extension {DISTRIBUTING_EXTENSION}: docs/scaling.md has all steps")
    if not await connection.fetchval(_IS_COORDINATOR):
        raise unavailable("this is not the coordinator of the cluster; use its address")


async def _distribute(connection: Connection) -> Sequence[str]:
    """Distribute what is not distributed yet, in one transaction. Returns the names of these tables."""
    async with connection.transaction():
        if not await connection.fetchval(head_statements.KEEP_SERVERS_AWAY, DEFAULT_NAMESPACE):
            raise unavailable("the database is in use by a server; stop all servers first")
        before = await schema.distributed_tables(connection)
        tables = [table for table in schema.TABLES_BY_NAMESPACE if table not in before]
        for table in tables:
            if table == schema.TABLES_BY_NAMESPACE[0]:
                await connection.execute(_DISTRIBUTE_FIRST, table)
            else:
                await connection.execute(_DISTRIBUTE, table, schema.TABLES_BY_NAMESPACE[0])
        if schema.MIGRATIONS_TABLE not in before:
            await connection.execute(_COPY_TO_EVERY_NODE, schema.MIGRATIONS_TABLE)
    return tables
