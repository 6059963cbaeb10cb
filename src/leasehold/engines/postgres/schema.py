"""Deploys the tables if they are missing, and migrates old ones.

To change the tables, add a file `NNNN_subject.sql` beside `tables.sql`. Then add its name, and the columns or indexes
that it adds, to MIGRATIONS. The version of the tables is the number of scripts that were run, by a server or by hand.

Servers of the previous version may be running during a migration. Each script is a transaction of its own, because
readers use `head` and the other tables in either order: a transaction that locked both against readers would get into a
deadlock with them.

Each table has a column `namespace`, by which it may be distributed over several nodes (`distribution`). Tables that are
distributed are migrated by `leasehold distribute` only, because a new table must be distributed, too.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final

import asyncpg

from leasehold.engines.base import MakeIncarnation
from leasehold.engines.postgres import head_statements
from leasehold.engines.postgres.links import Connection
from leasehold.errors import unavailable

MIGRATIONS: Final[Mapping[str, frozenset[str]]] = {
    "tables.sql": frozenset(
        {
            *("head.namespace", "head.revision", "head.compacted_revision"),
            *("data.namespace", "data.key", "data.data", "data.exact", "data.revision"),
            *("data.created_at", "data.updated_at", "data.expires_at"),
            *("deletions.namespace", "deletions.revision", "deletions.key"),
            *("writers.namespace", "writers.writer", "writers.batch", "writers.written_at"),
            *("locks.namespace", "locks.lock_id", "locks.locked_at", "locks.expires_at"),
            *("locks.lease_id", "locks.token", "locks.holder", "locks.owner"),
        }
    ),
    "0002_leases.sql": frozenset({"locks.revision", "locks.ttl"}),
    "0003_incarnation.sql": frozenset({"head.incarnation"}),
    "0004_removals.sql": frozenset({"deletions.kind"}),
    "0005_batches.sql": frozenset(
        {
            *("batches.namespace", "batches.kind", "batches.revision"),
            *("batches.complete_from", "batches.names"),
        }
    ),
    "0006_bytes.sql": frozenset({"data.media", "data.bytes"}),
    "0007_receipts.sql": frozenset(
        {
            *("receipts.namespace", "receipts.request", "receipts.memo", "receipts.revision", "receipts.expires_at"),
        }
    ),
    "0008_namespaces.sql": frozenset(
        {
            *("head.created_at", "head.deleted_at", "head.max_entries", "head.max_bytes"),
            *("head.entries", "head.bytes", "head.summed_from", "head.summed_to"),
        }
    ),
    "0009_expiry.sql": frozenset({"data.data_expiry", "locks.locks_expiry", "receipts.receipts_expiry"}),
}
"""The scripts in their order, each with the columns or indexes that it adds. They show that it was run by hand."""

MIGRATIONS_TABLE: Final = "leasehold_migrations"
_HEAD: Final = "head"
TABLES_BY_NAMESPACE: Final[Sequence[str]] = sorted(
    {column.partition(".")[0] for columns in MIGRATIONS.values() for column in columns},
    key=lambda name: (name != _HEAD, name),
)
"""All tables but that of the migrations. The first one is that of the heads."""

MIN_SERVER_VERSION: Final = 140_000

_ADVISORY_LOCK: Final = 0x6C65617365686F6C
"""`leasehol` in ASCII. The lock ensures that no two servers deploy at once."""


_CREATE_MIGRATIONS: Final = """
    CREATE TABLE IF NOT EXISTS leasehold_migrations (version int PRIMARY KEY, applied_at timestamptz NOT NULL)
"""
_ADD_VERSION: Final = "INSERT INTO leasehold_migrations VALUES ($1, $2)"
_COLUMNS_AND_INDEXES: Final = """
    SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = current_schema()
    UNION ALL SELECT tablename || '.' || indexname FROM pg_indexes WHERE schemaname = current_schema()
"""
_CAN_BE_DISTRIBUTED: Final = "SELECT to_regclass('pg_dist_partition') IS NOT NULL"
"""Whether there is the catalogue of the extension Citus."""
_DISTRIBUTED: Final = """
    SELECT relname FROM pg_dist_partition JOIN pg_catalog.pg_class ON pg_class.oid = logicalrelid
    WHERE relnamespace = current_schema()::regnamespace
"""


def load_scripts() -> list[str]:
    folder = files("leasehold.engines.postgres")
    return [(folder / name).read_text(encoding="utf-8") for name in MIGRATIONS]


async def deploy(
    connection: Connection, scripts: Sequence[str], *, now: int, may_migrate_distributed: bool = False
) -> None:
    """Run those of `scripts` that have not been run on the database. Raises `unavailable` if it cannot be used."""
    await _check_server(connection)
    while (version := await _version(connection)) < len(scripts):
        if not may_migrate_distributed and await distributed_tables(connection):
            raise unavailable("the tables are distributed and of an older version: run `leasehold distribute`")
        async with connection.transaction():
            await _migrate(connection, scripts, now)
    if version > len(scripts):
        raise unavailable(
            f"the tables have version {version}, made by a newer Leasehold; this one knows {len(scripts)}"
        )


async def _migrate(connection: Connection, scripts: Sequence[str], now: int) -> None:
    """Run the next script, or all of them if there are no tables yet."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _ADVISORY_LOCK)
    version = await _version(connection)
    if version == 0:
        await connection.execute(_CREATE_MIGRATIONS)
    by_hand = await _made_by_hand(connection, version)
    for number in range(version + 1, by_hand + 1):
        await connection.execute(_ADD_VERSION, number, now)
    last = by_hand + 1 if by_hand else len(scripts)
    for number, script in enumerate(scripts[by_hand:last], start=by_hand + 1):
        try:
            await connection.execute(script)
        except asyncpg.DuplicateTableError as error:
            raise unavailable("the database holds tables of something else under the names of Leasehold's") from error
        except asyncpg.LockNotAvailableError as error:
            reason = "another transaction uses them, maybe that of a backup; try again after it"
            raise unavailable(f"the tables cannot be migrated: {reason}") from error
        await connection.execute(_ADD_VERSION, number, now)


async def _check_server(connection: Connection) -> None:
    row = await connection.fetchrow(
        "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), current_schema()"
    )
    assert row is not None
    version, encoding, schema = row
    if version < MIN_SERVER_VERSION:
        raise unavailable(f"PostgreSQL is too old: {version // 10_000}, and {MIN_SERVER_VERSION // 10_000} is needed")
    if encoding != "UTF8":
        raise unavailable(f"the database has the encoding {encoding}; create one with UTF8")
    if schema is None:
        raise unavailable("the database has no schema that the user may use")


async def _version(connection: Connection) -> int:
    """How many scripts have been run on the database; 0 if it has no tables yet."""
    # Not `to_regclass`: in a transaction it may not find a table that another server has just created.
    exists = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'leasehold_migrations'"
    if not await connection.fetchval(exists):
        return 0
    version = await connection.fetchval("SELECT coalesce(max(version), 0) FROM leasehold_migrations")
    assert isinstance(version, int)
    return version


async def _made_by_hand(connection: Connection, version: int) -> int:
    """The version of the tables, whose scripts after `version` may have been run by hand."""
    found = {row[0] for row in await connection.fetch(_COLUMNS_AND_INDEXES)}
    added = list(MIGRATIONS.values())
    while version < len(added) and added[version] <= found:
        version += 1
    return version


async def distributed_tables(connection: Connection) -> frozenset[str]:
    """The tables of the schema that Citus distributes, or has on every node."""
    if not await connection.fetchval(_CAN_BE_DISTRIBUTED):
        return frozenset()
    return frozenset(row[0] for row in await connection.fetch(_DISTRIBUTED))


async def ensure_head(connection: Connection, namespace: str, make_incarnation: MakeIncarnation) -> tuple[int, str]:
    """Returns the revision and the incarnation of a namespace. Creates its head if it is new.

    If several servers do this at once, the first one that locks the row sets the incarnation.
    """
    row = await connection.fetchrow(head_statements.HEAD, namespace)
    if row is None or row["incarnation"] is None or row["created_at"] is None:
        await connection.execute(head_statements.ADD_HEAD, namespace)
        now = await connection.fetchval(head_statements.CLOCK)
        await connection.execute(head_statements.COMPLETE_HEAD, namespace, make_incarnation(), now)
        row = await connection.fetchrow(head_statements.HEAD, namespace)
    assert row is not None
    return row["revision"], row["incarnation"]
