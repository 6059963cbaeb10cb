"""Reads all entries of a space at one moment, and restores a backup. Each uses one transaction on a new connection."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final, TypeVar

import asyncpg

from leasehold.engines.backups import Backup, Keep, StoreMoment
from leasehold.engines.base import Clock, MakeIncarnation, Moment
from leasehold.engines.file.offline import Restored
from leasehold.engines.postgres import head_statements, namespace_statements, namespaces, record_statements, schema
from leasehold.engines.postgres.failures import FAILURES, as_start_error
from leasehold.engines.postgres.links import SILENCE_SECONDS, Address, Connection, collect_warnings, time_limit
from leasehold.engines.postgres.lists import PAGE_WEIGHT
from leasehold.engines.postgres.tables import entries
from leasehold.engines.state import Description, StoredState
from leasehold.errors import no_such_namespace, unavailable
from leasehold.limits import MIB
from leasehold.model import ENTRY, Entry
from leasehold.namespaces import DEFAULT_NAMESPACE

T = TypeVar("T")

MAX_PAGE_ENTRIES: Final = 512
HEAVY_PAGE_BYTES: Final = 1 * MIB
PAGE_SILENCE_SECONDS: Final = 15.0
"""The time limit for one page. After it the connection is given up."""

_STATEMENTS: Final = record_statements.OF_KIND[ENTRY]


async def moment(address: Address, namespace: str, clock: Clock | None) -> Moment:
    """See `Space.moment`. The connection stays open until the reader has read all pages, which may take long."""
    connection = await address.connect()
    try:
        with time_limit(connection, SILENCE_SECONDS):
            await connection.execute(head_statements.NO_IDLE_TIMEOUT)
            await connection.execute(head_statements.BEGIN_MOMENT)
            head = await connection.fetchrow(head_statements.HEAD, namespace)
    except BaseException:
        connection.terminate()
        raise
    if head is None or head["deleted_at"] is not None:
        connection.terminate()
        raise no_such_namespace()
    return Moment(head["incarnation"], head["revision"], _closing(connection, namespace, clock))


@asynccontextmanager
async def moment_of(url: str) -> AsyncIterator[StoreMoment]:
    """All namespaces at this moment, of a database that no engine has opened. Raises ServiceError."""
    try:
        connection = await Address(url).connect()
    except (*FAILURES, ValueError) as failure:
        raise as_start_error(failure) from failure
    try:
        yield await _begun_moment(connection)
    finally:
        connection.terminate()


async def _begun_moment(connection: Connection) -> StoreMoment:
    """Begin a transaction that sees one moment."""
    try:
        with time_limit(connection, SILENCE_SECONDS):
            await connection.execute(head_statements.NO_IDLE_TIMEOUT)
            await connection.execute(head_statements.BEGIN_MOMENT)
            return await _store_moment(connection)
    except asyncpg.UndefinedTableError as failure:
        raise unavailable("the database holds no store") from failure
    except asyncpg.UndefinedColumnError as failure:
        reason = "back up with the version of its servers, or start a server of this version first"
        raise unavailable(f"the tables are of an older version: {reason}") from failure
    except FAILURES as failure:
        raise as_start_error(failure) from failure


async def _store_moment(connection: Connection) -> StoreMoment:
    """All namespaces, as the transaction of a connection sees them."""
    rows = {row["namespace"]: row for row in await connection.fetch(namespace_statements.ALL)}

    async def moment_of(namespace: str) -> Moment:
        row = rows[namespace]
        return Moment(row["incarnation"], row["revision"], _readable_pages(connection, namespace, None))

    return StoreMoment({name: namespaces.description_of(rows[name]) for name in sorted(rows)}, moment_of)


def _only(default: Moment) -> StoreMoment:
    """One namespace, as if it were the only one."""

    async def moment_of(_namespace: str) -> Moment:
        return default

    return StoreMoment({DEFAULT_NAMESPACE: Description()}, moment_of)


async def _closing(connection: Connection, namespace: str, clock: Clock | None) -> AsyncGenerator[Sequence[Entry]]:
    try:
        async with aclosing(_readable_pages(connection, namespace, clock)) as pages:
            async for page in pages:
                yield page
    finally:
        connection.terminate()


async def _readable_pages(
    connection: Connection, namespace: str, clock: Clock | None
) -> AsyncGenerator[Sequence[Entry]]:
    """As `_pages`. Raises `unavailable`."""
    try:
        async for page in _pages(connection, namespace, clock):
            yield page
    except FAILURES as failure:
        raise unavailable("the database cannot be read any further") from failure


async def _pages(connection: Connection, namespace: str, clock: Clock | None) -> AsyncGenerator[Sequence[Entry]]:
    """All live entries, in pages. Pages with large values have fewer entries."""
    after, size = "", MAX_PAGE_ENTRIES // 16
    while True:
        now = None if clock is None else clock()
        with time_limit(connection, PAGE_SILENCE_SECONDS):
            rows = await connection.fetch(_STATEMENTS.next_page, namespace, after, size, now, PAGE_WEIGHT)
        page = [entries.record(*row[1:]) for row in rows]
        if not page:
            return
        yield page
        after = page[-1].key
        is_heavy = sum(len(entry.value) for entry in page) > HEAVY_PAGE_BYTES
        size = max(size // 2, 1) if is_heavy else min(size * 2, MAX_PAGE_ENTRIES)


async def restore(
    url: str,
    backup: StoredState,
    *,
    advance: int,
    keep: Keep | None,
    make_incarnation: MakeIncarnation,
    now: int,
    namespace: str = DEFAULT_NAMESPACE,
) -> Restored:
    """Replace the contents of the database with `backup`. The new head is `advance` revisions larger than both heads.

    This is one transaction, with the head locked: servers that are running see all of it or nothing, and their writes
    wait. A database that is not empty is refused if `keep` is None; otherwise `keep` gets its entries first.
    Raises ServiceError.
    """

    async def work(connection: Connection) -> Restored:
        kept = None
        head = await _locked_head(connection, namespace, make_incarnation)
        if head or await connection.fetchval(record_statements.HOLDS_ANYTHING, namespace):
            if keep is None:
                raise unavailable("the database is not empty: with --replace, its content is kept in a file")
            row = await connection.fetchrow(head_statements.HEAD, namespace)
            assert row is not None
            kept = await keep(_only(Moment(row["incarnation"], row["revision"], _pages(connection, namespace, None))))
            await _remove_everything(connection, namespace)
        revision = max(head, backup.revision) + advance
        await _fill(connection, namespace, backup, revision, make_incarnation)
        await connection.execute(namespace_statements.REVIVE, namespace)
        return Restored(revision, kept)

    return await _in_one_transaction(url, work, now=now)


async def restore_all(
    url: str, backup: Backup, *, advance: int, keep: Keep | None, make_incarnation: MakeIncarnation, now: int
) -> Restored:
    """Replace all namespaces of the database by those of `backup`. What it does not have is deleted.

    Each new head is `advance` larger than both heads. Otherwise as `restore`. Returns the head of `default`.
    """

    async def work(connection: Connection) -> Restored:
        await schema.ensure_head(connection, DEFAULT_NAMESPACE, make_incarnation)
        found = await _locked_namespaces(connection)
        heads = {
            name: await _locked_head(connection, name, make_incarnation)
            for name in sorted(found.keys() | backup.namespaces.keys())
        }
        kept = None
        is_unused = found == {DEFAULT_NAMESPACE: Description()} and not heads[DEFAULT_NAMESPACE]
        if not is_unused or await connection.fetchval(record_statements.HOLDS_ANYTHING, DEFAULT_NAMESPACE):
            if keep is None:
                raise unavailable("the database is not empty: with --replace, its content is kept in a file")
            kept = await keep(StoreMoment(found, (await _store_moment(connection)).moment_of))
        for name, head in heads.items():
            await _remove_everything(connection, name)
            description = backup.namespaces.get(name)
            if description is None or description.deleted_at_revision is not None:
                await namespaces.set_deleted(connection, name, now=now)
                if description is not None and description.deleted_at_revision is not None:
                    existed = name in found and not found[name].is_deleted
                    revision = max(head + existed, description.deleted_at_revision) + advance
                    await connection.execute(head_statements.MOVE_HEAD, name, revision, make_incarnation())
                await connection.execute(namespace_statements.SET_USAGE, name, 0, 0)
            else:
                state = backup.states[name]
                await _fill(connection, name, state, max(head, state.revision) + advance, make_incarnation)
                await namespaces.set_description(connection, name, description)
        return Restored(max(heads[DEFAULT_NAMESPACE], backup.states[DEFAULT_NAMESPACE].revision) + advance, kept)

    return await _in_one_transaction(url, work, now=now)


async def _locked_namespaces(connection: Connection) -> Mapping[str, Description]:
    """All namespaces, deleted ones included, described when their heads are locked: until then servers change them."""
    locked: set[str] = set()
    while not (found := await namespaces.descriptions(connection)).keys() <= locked:
        for name in sorted(found.keys() - locked):
            await connection.execute(head_statements.LOCK_HEAD, name)
        locked |= found.keys()
    return found


async def _remove_everything(connection: Connection, namespace: str) -> None:
    for statement in record_statements.REMOVE_EVERYTHING:
        await connection.execute(statement, namespace)


async def _fill(
    connection: Connection, namespace: str, backup: StoredState, revision: int, make_incarnation: MakeIncarnation
) -> None:
    """Add the entries of a backup to an empty namespace, and move its head."""
    size = 0
    for portion in _portions(backup):
        await connection.execute(_STATEMENTS.add, namespace, *entries.values(portion))
        size += entries.growth({}, (), portion)[1]
    await connection.execute(head_statements.MOVE_HEAD, namespace, revision, make_incarnation())
    await connection.execute(namespace_statements.SET_USAGE, namespace, len(backup.of(ENTRY).by_name), size)


async def advance(url: str, *, by: int, make_incarnation: MakeIncarnation, now: int) -> int:
    """Advance the heads of all namespaces by `by` revisions, with new incarnations, also of those that were deleted.

    Returns the new head of `default`. Raises ServiceError.
    """

    async def work(connection: Connection) -> int:
        await schema.ensure_head(connection, DEFAULT_NAMESPACE, make_incarnation)
        heads = {}
        for [namespace] in await connection.fetch(namespace_statements.NAMES):
            heads[namespace] = await _locked_head(connection, namespace, make_incarnation) + by
            await connection.execute(head_statements.MOVE_HEAD, namespace, heads[namespace], make_incarnation())
        return heads[DEFAULT_NAMESPACE]

    return await _in_one_transaction(url, work, now=now)


async def _in_one_transaction(url: str, work: Callable[[Connection], Awaitable[T]], *, now: int) -> T:
    is_committing = False
    try:
        connection = await Address(url).connect()
    except (*FAILURES, ValueError) as failure:
        raise as_start_error(failure) from failure
    try:
        await connection.execute(head_statements.NO_IDLE_TIMEOUT)
        await schema.deploy(connection, schema.load_scripts(), now=now)
        await connection.execute(head_statements.BEGIN)
        result = await work(connection)
        await connection.execute(head_statements.SHOW_WARNINGS)
        is_committing = True
        with collect_warnings(connection) as warnings:
            answer = await connection.execute(head_statements.COMMIT)
        if answer != "COMMIT" or warnings:
            raise asyncpg.InterfaceError("a COMMIT was not answered in good order")
    except FAILURES as failure:
        outcome = "whether the change was made is unknown" if is_committing else "nothing was changed"
        raise unavailable(f"{as_start_error(failure).message}; {outcome}") from failure
    else:
        return result
    finally:
        connection.terminate()


async def _locked_head(connection: Connection, namespace: str, make_incarnation: MakeIncarnation) -> int:
    await schema.ensure_head(connection, namespace, make_incarnation)
    await connection.execute(head_statements.LOCK_HEAD, namespace)
    head = await connection.fetchval(head_statements.HEAD, namespace)
    assert isinstance(head, int)
    return head


def _portions(backup: StoredState) -> Iterator[list[Entry]]:
    portion: list[Entry] = []
    size = 0
    for entry in backup.of(ENTRY).by_name.values():
        portion.append(entry)
        size += len(entry.value)
        if size > HEAVY_PAGE_BYTES or len(portion) == MAX_PAGE_ENTRIES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
