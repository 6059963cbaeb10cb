"""A store on PostgreSQL as the source or the target of a move (`engines.moves`).

Each is one transaction. It holds the lock that each server holds shared (`head_statements.USE`), so no server can
start, and it holds the head row, so no server of an older version can commit. A target is filled, read back and
compared within its transaction, so nobody sees it before its COMMIT.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import repeat
from typing import Final

import asyncpg

from leasehold.engines import base
from leasehold.engines.base import MakeIncarnation
from leasehold.engines.moves import Head, RemovedName
from leasehold.engines.postgres import head_statements, namespace_statements, record_statements, schema
from leasehold.engines.postgres import move_statements as statements
from leasehold.engines.postgres import namespaces as stored_namespaces
from leasehold.engines.postgres.failures import FAILURES, as_start_error
from leasehold.engines.postgres.links import CLOSE_SECONDS, Address, Connection, collect_warnings, time_limit
from leasehold.engines.postgres.lists import PAGE_WEIGHT
from leasehold.engines.postgres.messages import EPOCH_MICROSECONDS
from leasehold.engines.postgres.tables import TABLES
from leasehold.engines.state import Description
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


class PostgresSpaceSource:
    """The space of a namespace within the transaction of a connection."""

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
        record, next_page = TABLES[kind].record, record_statements.OF_KIND[kind].next_page
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


class PostgresSpaceTarget(PostgresSpaceSource):
    """The space of a namespace that is filled within the transaction of a connection."""

    def __init__(self, connection: Connection, namespace: str, head: Head) -> None:
        super().__init__(connection, namespace, head)
        self._added_entries = self._added_bytes = 0
        """What was added, as in `Usage`. A count later would hold up the first commit under a quota."""

    async def add(self, kind: AnyKind, records: Sequence[Record]) -> None:
        table = TABLES[kind]
        if table.growth is not None:
            entries, size, _ = table.growth({}, (), records)
            self._added_entries += entries
            self._added_bytes += size
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

    async def complete(self, head: Head) -> None:
        """See `Target.write`."""
        connection, namespace = self._connection, self._namespace
        with time_limit(connection, WHOLE_SECONDS):
            await connection.execute(statements.ADD_BATCHES, namespace, head.compacted_revision)
            await connection.execute(statements.ADD_BATCH_OF_HEAD, namespace, head.revision, head.compacted_revision)
            await _set_head(connection, namespace, head)
            usage = self._added_entries, self._added_bytes
            await connection.execute(namespace_statements.SET_USAGE, namespace, *usage)
        self.head = await _read_head(connection, namespace)


class PostgresSource:
    """A store within the transaction of a connection."""

    def __init__(self, namespaces: Mapping[str, Description], spaces: Mapping[str, PostgresSpaceSource]) -> None:
        self.namespaces = namespaces
        self._spaces = spaces

    def space(self, namespace: str) -> PostgresSpaceSource:
        return self._spaces[namespace]


class PostgresTarget:
    """A store that is filled within the transaction of a connection."""

    def __init__(
        self,
        connection: Connection,
        namespaces: Mapping[str, Description],
        spaces: dict[str, PostgresSpaceTarget],
        make_incarnation: MakeIncarnation,
        now: int,
        *,
        is_empty: bool,
    ) -> None:
        self.namespaces = namespaces
        self.is_empty = is_empty
        self._connection = connection
        self._spaces = spaces
        self._make_incarnation = make_incarnation
        self._now = now

    def space(self, namespace: str) -> PostgresSpaceTarget:
        found = self._spaces.get(namespace)
        if found is None:
            found = self._spaces[namespace] = PostgresSpaceTarget(self._connection, namespace, Head("", 0, 0))
        return found

    async def write(self, namespaces: Mapping[str, Description], heads: Mapping[str, Head]) -> None:
        connection = self._connection
        for name, description in namespaces.items():
            await schema.ensure_head(connection, name, self._make_incarnation)
            deleted_at_revision = description.deleted_at_revision
            if deleted_at_revision is not None:
                await stored_namespaces.set_deleted(connection, name, now=self._now)
                head = Head(self._make_incarnation(), deleted_at_revision, deleted_at_revision)
                await _set_head(connection, name, head)
                await connection.execute(namespace_statements.SET_USAGE, name, 0, 0)
            else:
                await self.space(name).complete(heads[name])
                await stored_namespaces.set_description(connection, name, description)
        self.namespaces = await stored_namespaces.descriptions(connection)

    async def publish(self) -> None:
        is_committing = False
        try:
            with time_limit(self._connection, WHOLE_SECONDS):
                await self._connection.execute(head_statements.SHOW_WARNINGS)
                is_committing = True
                with collect_warnings(self._connection) as warnings:
                    answer = await self._connection.execute(head_statements.COMMIT)
            if answer != "COMMIT" or warnings:
                raise asyncpg.InterfaceError("a COMMIT was not answered in good order")
        except FAILURES as failure:
            if not is_committing:
                raise
            outcome = "whether the store was moved is unknown: run the same command again"
            raise unavailable(f"{as_start_error(failure).message}; {outcome}") from failure


async def _set_head(connection: Connection, namespace: str, head: Head) -> None:
    await connection.execute(statements.SET_HEAD, namespace, head.revision, head.compacted_revision, head.incarnation)


@asynccontextmanager
async def opened_source(url: str, *, make_incarnation: MakeIncarnation, now: int) -> AsyncIterator[PostgresSource]:
    """The store in a database. Raises `unavailable` if there is none, or if a server uses it.

    Tables of an older version are migrated. A store of version 0.1.0 gets an incarnation within the transaction.
    """
    async with _connected(url) as connection:
        if not await _is_store(connection):
            raise unavailable("the database holds no store")
        found, heads = await _hold(connection, make_incarnation, now)
        yield PostgresSource(found, {name: PostgresSpaceSource(connection, name, head) for name, head in heads.items()})


@asynccontextmanager
async def opened_target(url: str, *, make_incarnation: MakeIncarnation, now: int) -> AsyncIterator[PostgresTarget]:
    """The store in a database, whose tables are made if they are missing. Raises `unavailable` if a server uses it."""
    async with _connected(url) as connection:
        found, heads = await _hold(connection, make_incarnation, now)
        spaces = {name: PostgresSpaceTarget(connection, name, head) for name, head in heads.items()}
        holds_anything = await connection.fetchval(record_statements.HOLDS_ANYTHING, DEFAULT_NAMESPACE)
        is_unused = found == {DEFAULT_NAMESPACE: Description()} and not heads[DEFAULT_NAMESPACE].revision
        is_empty = is_unused and not holds_anything
        yield PostgresTarget(connection, found, spaces, make_incarnation, now, is_empty=is_empty)


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
            await connection.execute(head_statements.ROLLBACK)  # its answer comes when the locks are free
        connection.terminate()


async def _is_store(connection: Connection) -> bool:
    try:
        return await connection.fetchval(statements.IS_STORE, DEFAULT_NAMESPACE) is not None
    except asyncpg.UndefinedTableError:
        return False


async def _hold(
    connection: Connection, make_incarnation: MakeIncarnation, now: int
) -> tuple[Mapping[str, Description], Mapping[str, Head]]:
    """Begin a transaction in which no server can use the store. Returns its namespaces, and the heads of their spaces.

    A server takes the lock for `default` only, whatever it serves.
    """
    await connection.execute(head_statements.NO_IDLE_TIMEOUT)
    await schema.deploy(connection, schema.load_scripts(), now=now)
    await connection.execute(head_statements.BEGIN)
    if not await connection.fetchval(head_statements.KEEP_SERVERS_AWAY, DEFAULT_NAMESPACE):
        raise unavailable("the database is in use by a server, or by another move; nothing was changed")
    await schema.ensure_head(connection, DEFAULT_NAMESPACE, make_incarnation)
    found = await stored_namespaces.descriptions(connection)
    heads = {}
    for name, description in found.items():
        await connection.execute(head_statements.LOCK_HEAD, name)
        if not description.is_deleted:
            heads[name] = await _read_head(connection, name)
    return found, heads


async def _read_head(connection: Connection, namespace: str) -> Head:
    row = await connection.fetchrow(statements.HEAD, namespace)
    assert row is not None
    revision, compacted_revision, incarnation = row
    # A commit forgets old removals only now and then. Every engine keeps the same number of changes.
    return Head(incarnation, revision, max(compacted_revision, revision - base.HISTORY_CHANGES))
