"""A store on PostgreSQL as the source or the target of a move (`engines.moves`).

Each is one transaction. It holds the lock that each server holds shared (`sql.USE`), so no server can start, and it
holds the head row, so no server of an older version can commit. A target is filled, read back and compared within its
transaction, so nobody sees it before its COMMIT.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import repeat
from typing import Final

import asyncpg

from leasehold.engines import base
from leasehold.engines.base import MakeIncarnation
from leasehold.engines.moves import Head, RemovedName
from leasehold.engines.postgres import move_statements as statements
from leasehold.engines.postgres import namespace_statements, schema, sql
from leasehold.engines.postgres.failures import FAILURES, as_start_error
from leasehold.engines.postgres.links import CLOSE_SECONDS, Address, Connection, collect_warnings, time_limit
from leasehold.engines.postgres.lists import PAGE_WEIGHT
from leasehold.engines.postgres.messages import EPOCH_MICROSECONDS
from leasehold.engines.postgres.tables import TABLES
from leasehold.errors import unavailable
from leasehold.model import AnyKind, Record
from leasehold.namespaces import DEFAULT_NAMESPACE

PAGE_RECORDS: Final = 2_000
PAGE_REMOVALS: Final = 10_000
SILENCE_SECONDS: Final = 600.0
"""The connection is given up if a page takes longer. A thousand values of 1 MiB may be in one."""
WHOLE_SECONDS: Final = 3_600.0
"""The same for a statement about the whole store, and for COMMIT."""
_BEGINNING: Final = EPOCH_MICROSECONDS - 2**63
"""`-infinity`, as the clock of the statements: no record has expired yet."""


class PostgresSource:
    """A store within the transaction of a connection."""

    def __init__(self, connection: Connection, namespace: str, head: Head) -> None:
        self._connection = connection
        self._namespace = namespace
        self.head = head

    async def count(self, kind: AnyKind) -> int:
        with time_limit(self._connection, WHOLE_SECONDS):
            count = await self._connection.fetchval(statements.count_of(TABLES[kind]), self._namespace)
        assert isinstance(count, int)
        return count

    async def records(self, kind: AnyKind) -> AsyncGenerator[Sequence[Record]]:
        record, next_page = TABLES[kind].record, sql.OF_KIND[kind].next_page
        after = ""
        while True:
            arguments = (after, PAGE_RECORDS, _BEGINNING, PAGE_WEIGHT)
            with time_limit(self._connection, SILENCE_SECONDS):
                rows = await self._connection.fetch(next_page, self._namespace, *arguments)
            if not rows:
                return
            page = [record(*row[1:]) for row in rows]
            yield page
            after = page[-1].name

    async def removals(self, kind: AnyKind) -> AsyncGenerator[Sequence[RemovedName]]:
        statement = statements.removals_of(TABLES[kind])
        after = ""
        while True:
            arguments = (self.head.compacted_revision, after, PAGE_REMOVALS)
            with time_limit(self._connection, SILENCE_SECONDS):
                rows = await self._connection.fetch(statement, self._namespace, *arguments)
            if not rows:
                return
            page = [RemovedName(*row) for row in rows]
            yield page
            after = page[-1].name


class PostgresTarget(PostgresSource):
    """A store that is filled within the transaction of a connection."""

    def __init__(self, connection: Connection, namespace: str, head: Head, *, is_empty: bool) -> None:
        super().__init__(connection, namespace, head)
        self.is_empty = is_empty

    async def add(self, kind: AnyKind, records: Sequence[Record]) -> None:
        table = TABLES[kind]
        columns = (repeat(None) if column is None else column for column in table.values(records))
        names = [column.name for column in table.columns]
        await self._copy(table.name, names, list(zip(*columns, strict=False)))

    async def add_removals(self, kind: AnyKind, removals: Sequence[RemovedName]) -> None:
        rows = [(kind.name, name, revision) for name, revision in removals]
        await self._copy("deletions", ["kind", "key", "revision"], rows)

    async def _copy(self, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
        with time_limit(self._connection, SILENCE_SECONDS):
            await self._connection.copy_records_to_table(
                table,
                records=((self._namespace, *row) for row in rows),
                columns=["namespace", *columns],
            )

    async def write(self, head: Head) -> None:
        connection, namespace = self._connection, self._namespace
        with time_limit(connection, WHOLE_SECONDS):
            await connection.execute(statements.ADD_BATCHES, namespace, head.compacted_revision)
            await connection.execute(statements.ADD_BATCH_OF_HEAD, namespace, head.revision, head.compacted_revision)
            await connection.execute(
                statements.SET_HEAD, namespace, head.revision, head.compacted_revision, head.incarnation
            )
        self.head = await _read_head(connection, namespace)

    async def publish(self) -> None:
        is_committing = False
        try:
            with time_limit(self._connection, WHOLE_SECONDS):
                await self._connection.execute(sql.SHOW_WARNINGS)
                is_committing = True
                with collect_warnings(self._connection) as warnings:
                    answer = await self._connection.execute(sql.COMMIT)
            if answer != "COMMIT" or warnings:
                raise asyncpg.InterfaceError("a COMMIT was not answered in good order")
        except FAILURES as failure:
            if not is_committing:
                raise
            outcome = "whether the store was moved is unknown: run the same command again"
            raise unavailable(f"{as_start_error(failure).message}; {outcome}") from failure


@asynccontextmanager
async def opened_source(
    url: str, *, make_incarnation: MakeIncarnation, now: int, namespace: str = DEFAULT_NAMESPACE
) -> AsyncIterator[PostgresSource]:
    """The store in a database. Raises `unavailable` if there is none, or if a server uses it.

    Tables of an older version are migrated. A store of version 0.1.0 gets an incarnation within the transaction.
    """
    async with _connected(url) as connection:
        if not await _is_store(connection, namespace):
            raise unavailable("the database holds no store")
        head = await _hold(connection, namespace, make_incarnation, now)
        await _check_that_all_is_moved(connection, namespace)
        yield PostgresSource(connection, namespace, head)


async def _check_that_all_is_moved(connection: Connection, namespace: str) -> None:
    """Raise `unavailable` for a store with more than the records of `namespace`. A deleted one has a last revision."""
    names = [row["namespace"] for row in await connection.fetch(namespace_statements.NAMES)]
    row = await connection.fetchrow(namespace_statements.DESCRIBE, namespace)
    assert row is not None
    if names != [namespace] or row["max_entries"] is not None or row["max_bytes"] is not None:
        raise unavailable("the store has, or had, other namespaces or a quota, which cannot be moved yet")


@asynccontextmanager
async def opened_target(
    url: str, *, make_incarnation: MakeIncarnation, now: int, namespace: str = DEFAULT_NAMESPACE
) -> AsyncIterator[PostgresTarget]:
    """The store in a database, whose tables are made if they are missing. Raises `unavailable` if a server uses it."""
    async with _connected(url) as connection:
        head = await _hold(connection, namespace, make_incarnation, now)
        holds_anything = await connection.fetchval(sql.HOLDS_ANYTHING, namespace)
        is_empty = not head.revision and not holds_anything
        yield PostgresTarget(connection, namespace, head, is_empty=is_empty)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connection]:
    """A connection whose transaction is rolled back at the end, unless it was committed."""
    try:
        connection = await Address(url).connect()
    except (*FAILURES, ValueError) as failure:
        raise as_start_error(failure) from failure
    try:
        yield connection
    except FAILURES as failure:
        raise unavailable(f"{as_start_error(failure).message}; nothing was changed") from failure
    finally:
        with time_limit(connection, CLOSE_SECONDS), suppress(*FAILURES):
            await connection.execute(sql.ROLLBACK)  # its answer comes when the locks are free
        connection.terminate()


async def _is_store(connection: Connection, namespace: str) -> bool:
    try:
        return await connection.fetchval(statements.IS_STORE, namespace) is not None
    except asyncpg.UndefinedTableError:
        return False


async def _hold(connection: Connection, namespace: str, make_incarnation: MakeIncarnation, now: int) -> Head:
    """Begin a transaction in which no server can use the store. Returns the head."""
    await connection.execute(sql.NO_IDLE_TIMEOUT)
    await schema.deploy(connection, schema.load_scripts(), now=now)
    await connection.execute(sql.BEGIN)
    if not await connection.fetchval(sql.KEEP_SERVERS_AWAY, namespace):
        raise unavailable("the database is in use by a server, or by another move; nothing was changed")
    await schema.ensure_head(connection, namespace, make_incarnation)
    await connection.execute(sql.LOCK_HEAD, namespace)
    return await _read_head(connection, namespace)


async def _read_head(connection: Connection, namespace: str) -> Head:
    row = await connection.fetchrow(statements.HEAD, namespace)
    assert row is not None
    revision, compacted_revision, incarnation = row
    # A commit forgets old removals only now and then. Every engine keeps the same number of changes.
    return Head(incarnation, revision, max(compacted_revision, revision - base.HISTORY_CHANGES))
