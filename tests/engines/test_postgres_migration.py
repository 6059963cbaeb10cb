"""Migrations from older tables, those of version 0.1.0 first, while servers of the older version run."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import asyncpg
import pytest
from databases import Database, commit, opened_space, run, shared_server_url, until
from driving import Driver

from leasehold.engines.postgres import backups, record_statements, schema
from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.engines.postgres.links import SESSION, Address
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, LEASE, Binary, Content, Deletion, Quota, QuotaChange, Usage
from leasehold.values import UNREADABLE, is_json

_numbers = count(1)


@pytest.fixture
def database() -> Database:
    return Database(shared_server_url(), f"migrated_{next(_numbers)}").create()


SCRIPTS_OF_0_1_0 = ("tables.sql", "0002_leases.sql", "0003_incarnation.sql")
CONTENTS_OF_0_1_0 = """
    INSERT INTO head VALUES ('default', 9, 0, '5f3a9c');
    INSERT INTO data (namespace, key, data, exact, revision, created_at, updated_at, expires_at) VALUES
        ('default', 'a', '{"n": 1}', NULL, 1, '2026-01-31T12:00Z', '2026-01-31T12:00Z', NULL),
        ('default', 'back', '"again"', NULL, 8, '2026-01-31T12:00Z', '2026-01-31T12:00Z', NULL),
        ('default', 'exact', '1', '-0.0', 2, '2026-01-31T12:00Z', '2026-01-31T12:00Z', '2099-01-31T12:00Z');
    INSERT INTO deletions (namespace, revision, key) VALUES
        ('default', 3, 'gone'), ('default', 4, 'back'), ('default', 6, 'gone');
    INSERT INTO locks (namespace, lock_id, locked_at, expires_at, lease_id, token, holder, owner, revision, ttl) VALUES
        ('default', 'l', '2026-01-31T12:00Z', '2099-01-31T12:00Z', 'id', 5, 'alice', '{"host": 1}', 9, 60000000);
    CREATE TABLE leasehold_migrations (version int PRIMARY KEY, applied_at timestamptz NOT NULL);
    INSERT INTO leasehold_migrations VALUES (1, now()), (2, now()), (3, now());
"""


DIGESTS = ["197727273b46204a", "ed104530c14c3a3c", "69ef17420a08976f"]


def test_the_migrations_of_0_1_0_come_first_and_are_unchanged() -> None:
    assert tuple(schema.MIGRATIONS)[:3] == SCRIPTS_OF_0_1_0
    digests = [hashlib.sha256(script.encode()).hexdigest()[:16] for script in schema.load_scripts()[:3]]
    assert digests == DIGESTS


def test_a_database_of_the_version_before_takes_bytes_after_the_migration(database: Database) -> None:
    """Its servers cannot read them, and say so. What they write instead is read as it is."""

    async def deploy() -> None:
        connection = await Address(database.url).connect()
        await schema.deploy(connection, schema.load_scripts()[:5], now=0)
        await connection.close()

    run(deploy())
    database.execute("INSERT INTO head VALUES ('default', 1, 0, '5f3a9c')")
    database.execute("INSERT INTO data VALUES ('default', 'a', '1', NULL, 1, now(), now(), NULL)")
    with Driver(PostgresEngine(database.url).space()) as driver:
        assert driver.values() == {"a": b"1"}
        driver.commit(("a", Binary("image/png", Content(b"\0"))), ("b", Binary("image/png", Content(b"2"))))
        older = "SELECT key, data::text, exact FROM data ORDER BY key"  # what they read
        assert [tuple(row) for row in database.fetch(older)] == [("a", "null", ""), ("b", "null", "")]
        assert not is_json(b"")
        database.execute("UPDATE data SET data = 'null', exact = NULL WHERE key = 'a'")  # what they write
        database.execute("UPDATE data SET data = '0', exact = '-0.0' WHERE key = 'b'")
        assert driver.values() == {"a": b"null", "b": b"-0.0"}
        driver.commit(("a", b"1"))
        assert database.fetch("SELECT media, bytes FROM data WHERE key = 'a'")[0][:] == (None, None)


def test_a_backup_of_tables_of_an_older_version_says_what_to_do(database: Database) -> None:
    async def back_up() -> None:
        await deploy_before_namespaces(database)
        async with backups.moment_of(database.url):
            pytest.fail("it lacks columns")

    with pytest.raises(ServiceError, match="the tables are of an older version: back up with the version of its"):
        run(back_up())


def test_a_row_without_its_bytes_cannot_be_read(database: Database) -> None:
    with Driver(PostgresEngine(database.url).space()) as driver:
        driver.put("a", Binary("image/png", Content(b"1")))
        database.execute("UPDATE data SET bytes = NULL")
        assert driver.value("a") == UNREADABLE
        driver.put("a", b"2")
        assert driver.value("a") == b"2"


def make_0_1_0(database: Database) -> None:
    for script in schema.load_scripts()[:3]:
        database.execute(script)
    database.execute(CONTENTS_OF_0_1_0)


def test_a_database_of_0_1_0_is_opened_with_all_its_data(database: Database) -> None:
    make_0_1_0(database)
    with Driver(PostgresEngine(database.url).space()) as driver:
        assert (driver.space.revision, driver.space.incarnation) == (9, "5f3a9c")
        assert driver.values() == {"a": b'{"n":1}', "back": b'"again"', "exact": b"-0.0"}
        lease = driver.read_lease("l")
        assert lease is not None
        assert (lease.lease_id, lease.token, lease.revision, lease.holder) == ("id", 5, 9, "alice")
        changes = driver.run(driver.space.changes(ENTRY, 2, "", 10))
        assert [(change.name, change.revision) for change in changes.changes] == [("gone", 6), ("back", 8)]
        of_leases = driver.run(driver.space.changes(LEASE, 2, "", 10))
        assert of_leases.changes == [lease]
        driver.commit(("gone", None), ("a", None))
        changes = driver.run(driver.space.changes(ENTRY, 2, "", 10))
        assert [(change.name, change.revision) for change in changes.changes] == [("back", 8), ("gone", 10), ("a", 11)]


OLDER_WRITE = """
    WITH removed AS (
        DELETE FROM data WHERE namespace = $1 AND key = ANY($2)
    ), noted AS (
        INSERT INTO deletions (namespace, key, revision) SELECT $1, * FROM unnest($2::text[], $3::bigint[])
    )
    UPDATE head SET revision = $4 WHERE namespace = $1
"""
OLDER_COMPACT = "DELETE FROM deletions WHERE namespace = $1 AND revision <= $2"


def test_a_server_of_0_1_0_can_delete_during_and_after_the_migration(database: Database) -> None:
    """It uses prepared statements, in a transaction that is open when the migration begins."""

    async def scenario() -> list[tuple[str, int]]:
        await asyncio.to_thread(make_0_1_0, database)
        older = await asyncpg.connect(database.url)
        write, compact = await older.prepare(OLDER_WRITE), await older.prepare(OLDER_COMPACT)
        under_way = older.transaction()
        await under_way.start()
        await older.execute("SELECT FROM head FOR UPDATE")
        newer = PostgresEngine(database.url).space()
        opening = asyncio.create_task(newer.open())
        await until(database, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
        await write.fetch("default", ["a"], [10], 10)
        await under_way.commit()
        await opening
        for revision in (11, 12):  # a key that has a removal already
            async with older.transaction():
                await write.fetch("default", ["a"], [revision], revision)
        await compact.fetch("default", 4)
        await older.close()
        try:
            changes = await newer.changes(ENTRY, 8, "", 10)
            assert await commit(newer, ["a"], lambda *_: [Deletion("a", 13)]) is None
            after = await newer.changes(ENTRY, 8, "", 10)
        finally:
            await newer.close()
        assert [(change.name, change.revision) for change in after.changes] == [("a", 13)]
        return [(change.name, change.revision) for change in changes.changes]

    assert run(scenario())[-1] == ("a", 12)


OLDER_PUT = """
    WITH written AS (
        INSERT INTO data (namespace, key, data, revision, created_at, updated_at)
        VALUES ($1, $2, '1', $3, now(), now())
        ON CONFLICT (namespace, key) DO UPDATE SET data = excluded.data, revision = excluded.revision
    )
    UPDATE head SET revision = $3 WHERE namespace = $1
"""


def test_changes_by_a_server_of_0_1_0_are_found_among_those_of_newer_ones(database: Database) -> None:
    """It writes no row into `batches`, where newer servers look for changes."""

    def put_by_older(key: str, revision: int) -> None:
        database.fetch(OLDER_PUT, "default", key, revision)

    with Driver(PostgresEngine(database.url).space()) as driver:

        def changes(after: int) -> list[tuple[str, int]]:
            found = driver.run(driver.space.changes(ENTRY, after, "", 2))
            assert found.revision == min(after + 2, 6)
            return [(change.name, change.revision) for change in found.changes]

        def has_all(after: int) -> bool:
            statement = record_statements.OF_KIND[ENTRY].changes
            return bool(database.fetch(statement, "default", after, "", 10, 10)[0][2])

        driver.commit(("a", b"1"))
        driver.commit(("b", b"1"))
        assert [has_all(after) for after in range(3)] == [True, True, True]
        put_by_older("c", 3)
        put_by_older("d", 4)
        assert [has_all(after) for after in range(5)] == [False] * 5
        driver.commit(("e", b"1"))
        driver.commit(("f", b"1"))
        assert [has_all(after) for after in range(7)] == [False, False, False, False, True, True, True]
        expected = [(key, number) for number, key in enumerate("abcdef", start=1)]
        assert [changes(after) for after in range(7)] == [expected[after : after + 2] for after in range(7)]


@pytest.mark.parametrize("is_migrated", [False, True])
def test_no_index_contains_a_column_that_each_write_changes(database: Database, is_migrated: bool) -> None:  # noqa: FBT001
    """So PostgreSQL can rewrite a row without a new item in every index (HOT)."""
    if is_migrated:
        make_0_1_0(database)
    with Driver(PostgresEngine(database.url).space()):
        pass
    rows = database.fetch("""
        SELECT DISTINCT attname FROM pg_index CROSS JOIN unnest(indkey) AS number
        JOIN pg_attribute ON attrelid = indrelid AND attnum = number WHERE indrelid = 'data'::regclass
    """)
    assert {row[0] for row in rows} == {"namespace", "key", "expires_at"}


# Version 8 and 9 ----------------------------------------------------------------------------------------------

BEFORE_NAMESPACES = 7
CONTENTS_BEFORE_NAMESPACES = """
    INSERT INTO head VALUES ('default', 5, 0, '5f3a9c');
    INSERT INTO data (namespace, key, data, exact, revision, created_at, updated_at, expires_at, media, bytes) VALUES
        ('default', 'a', '{"n": [1, "x, y: z"]}', NULL, 1, now(), now(), NULL, NULL, NULL),
        ('default', 'exact', '1', '-0.0', 2, now(), now(), NULL, NULL, NULL),
        ('default', 'ä', 'null', '', 3, now(), now(), NULL, 'image/png', '123'),
        ('default', 'over', '1', NULL, 4, now(), now(), now(), NULL, NULL);
    INSERT INTO locks (namespace, lock_id, locked_at, expires_at, lease_id, token, holder, owner, revision, ttl) VALUES
        ('default', 'l', now(), now(), 'id', 5, 'alice', '1', 5, 60000000);
"""
USAGE_BEFORE_NAMESPACES = Usage(4, 1 + len('{"n":[1,"x, y: z"]}') + 5 + 4 + 2 + 3 + 4 + 1)


async def deploy_before_namespaces(database: Database) -> None:
    connection = await Address(database.url).connect()
    await schema.deploy(connection, schema.load_scripts()[:BEFORE_NAMESPACES], now=0)
    await connection.close()
    await asyncio.to_thread(database.execute, CONTENTS_BEFORE_NAMESPACES)


@asynccontextmanager
async def opened_engine(database: Database) -> AsyncIterator[PostgresEngine]:
    engine = PostgresEngine(database.url)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


def test_a_store_of_the_version_before_namespaces_is_opened_and_counted_when_somebody_asks(database: Database) -> None:
    async def scenario() -> None:
        await deploy_before_namespaces(database)
        async with opened_engine(database) as engine, opened_space(engine.space()) as space:
            assert (space.revision, space.incarnation) == (5, "5f3a9c")
            assert await commit(space, ["a"], lambda *_: [Deletion("a", 6)]) is None
            [described] = await engine.namespaces(None, 10)
            assert described.usage == Usage(3, USAGE_BEFORE_NAMESPACES.bytes - len('a{"n":[1,"x, y: z"]}'))
            assert (described.revision, described.quota) == (6, Quota())
            assert described.created_at > 0
            assert set(await engine.expired(10)) == {("default", ENTRY, "over"), ("default", LEASE, "l")}
            assert await commit(space, ["ä"], lambda *_: [Deletion("ä", 7)]) is None
            assert (await engine.namespace("default")).usage == Usage(2, described.usage.bytes - 5)
            _, is_new = await engine.create("n", QuotaChange())
            assert is_new

    run(scenario())


@pytest.mark.parametrize("tables", [("head", "data"), ("data", "head"), ("head", "locks"), ("receipts", "head")])
def test_readers_use_the_tables_in_any_order_during_the_migration(database: Database, tables: tuple[str, str]) -> None:
    """A migration that locked both would get into a deadlock with them, and one of both would fail."""

    async def scenario() -> None:
        await deploy_before_namespaces(database)
        reader = await asyncpg.connect(database.url)
        async with opened_engine_when_free(database, reader, tables) as engine:
            assert (await engine.namespace("default")).usage == USAGE_BEFORE_NAMESPACES
        await reader.close()

    run(scenario())


@asynccontextmanager
async def opened_engine_when_free(
    database: Database, reader: asyncpg.Connection, tables: tuple[str, str]
) -> AsyncIterator[PostgresEngine]:
    """An engine that is opened while a reader reads these tables, one after the other."""
    reading = reader.transaction()
    await reading.start()
    await reader.execute(f"SELECT FROM {tables[0]}")
    engine = PostgresEngine(database.url)
    opening = asyncio.create_task(engine.open())
    await until(database, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
    await reader.execute(f"SELECT FROM {tables[1]}")
    await reading.commit()
    await opening
    try:
        yield engine
    finally:
        await engine.close()


def test_the_migration_gives_up_if_a_long_transaction_reads_the_tables(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All others would wait behind it."""
    monkeypatch.setitem(SESSION, "lock_timeout", "100")

    async def scenario() -> str:
        await deploy_before_namespaces(database)
        reader = await asyncpg.connect(database.url)
        reading = reader.transaction()
        await reading.start()
        await reader.execute("SELECT FROM head")
        with pytest.raises(ServiceError) as caught:
            await PostgresEngine(database.url).open()
        await reading.commit()
        await reader.close()
        async with opened_engine(database):
            return caught.value.message

    assert run(scenario()).startswith("the tables cannot be migrated: another transaction uses them")


def test_indexes_that_were_made_before_the_migration_are_kept(database: Database) -> None:
    """So that they can be made while all goes on (CONCURRENTLY)."""
    by_hand = "CREATE INDEX data_expiry ON data (expires_at) WHERE expires_at IS NOT NULL"

    async def scenario() -> None:
        await deploy_before_namespaces(database)
        await asyncio.to_thread(database.execute, by_hand)
        async with opened_engine(database):
            pass

    run(scenario())
    names = "SELECT indexname FROM pg_indexes WHERE schemaname = $1 AND indexname LIKE '%expir%' ORDER BY 1"
    found = [row[0] for row in database.fetch(names, database.schema)]
    assert found == ["data_expiry", "locks_expiry", "receipts_expiry"]
