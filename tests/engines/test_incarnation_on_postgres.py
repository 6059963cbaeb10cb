"""The incarnation in the table `head`: created once for all servers, without errors in older servers."""

import asyncio
from itertools import count

import asyncpg
import pytest
from databases import Database, commit, opened, read, run, shared_server_url, writing

from leasehold.engines.postgres import schema
from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.engines.postgres.links import Address
from leasehold.model import ENTRY, Change, View

_numbers = count(1)
INCARNATION, ANOTHER = "5f3a9c", "0d15ea"


@pytest.fixture
def database() -> Database:
    return Database(shared_server_url(), f"named_{next(_numbers)}").create()


def incarnation_in(database: Database) -> object:
    return database.fetch("SELECT incarnation FROM head")[0][0]


async def deploy_version_2(database: Database) -> None:
    connection = await Address(database.url).connect()
    await schema.deploy(connection, schema.load_scripts()[:2], now=0)
    await connection.close()


def test_servers_that_start_together_create_one_incarnation(database: Database) -> None:
    async def scenario() -> set[str]:
        engines = [PostgresEngine(database.url).space() for _ in range(4)]
        await asyncio.gather(*(each.open() for each in engines))
        seen = {each.incarnation for each in engines}
        for each in engines:
            await each.close()
        return seen

    assert run(scenario()) == {incarnation_in(database)}


def test_a_store_of_the_previous_version_gets_an_incarnation_and_keeps_its_head(database: Database) -> None:
    async def scenario() -> tuple[int, str]:
        await deploy_version_2(database)
        await asyncio.to_thread(
            database.execute, "INSERT INTO head (namespace, revision, compacted_revision) VALUES ('default', 42, 0)"
        )
        engine = PostgresEngine(database.url, make_incarnation=lambda: INCARNATION).space()
        await engine.open()
        await engine.close()
        return engine.revision, engine.incarnation

    assert run(scenario()) == (42, INCARNATION)
    assert incarnation_in(database) == INCARNATION


def test_a_server_of_the_previous_version_works_during_and_after_the_migration(database: Database) -> None:
    """It uses a connection and prepared statements from before the migration."""

    async def scenario() -> list[int]:
        await deploy_version_2(database)
        older = await asyncpg.connect(database.url)
        begin = await older.prepare(
            "INSERT INTO head (namespace, revision, compacted_revision) VALUES ($1, 0, 0) ON CONFLICT DO NOTHING"
        )
        lock = await older.prepare("SELECT revision, compacted_revision FROM head WHERE namespace = $1 FOR UPDATE")
        advance = await older.prepare("UPDATE head SET revision = $2 WHERE namespace = $1")
        revisions = []
        await begin.fetch("default")
        for _ in range(2):
            async with older.transaction():
                revision = (await lock.fetch("default"))[0][0]
                await advance.fetch("default", revision + 1)
            revisions.append(revision)
            async with opened(database.url):
                pass
        await begin.fetch("made by an older server")
        await older.close()
        return revisions

    assert run(scenario()) == [0, 1]


def test_a_store_that_an_older_server_created_after_the_migration_gets_an_incarnation(database: Database) -> None:
    async def scenario() -> str:
        async with opened(database.url):
            await asyncio.to_thread(database.execute, "UPDATE head SET incarnation = NULL")
        async with opened(database.url) as engine:
            return engine.incarnation

    assert run(scenario()) == incarnation_in(database)


def test_a_changed_incarnation_is_seen_by_the_next_read(database: Database) -> None:
    """An ETag must be compared with the incarnation at the time when the entry was read."""

    async def scenario() -> list[str]:
        async with opened(database.url) as engine:
            await commit(engine, ["a"], writing("a", b"1"))
            await asyncio.to_thread(database.execute, f"UPDATE head SET incarnation = '{ANOTHER}'")
            seen = []
            finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def done(_: object) -> None:
                seen.append(engine.incarnation)
                finished.set_result(None)

            engine.read(ENTRY, "a", done)
            await finished
            await asyncio.to_thread(database.execute, f"UPDATE head SET incarnation = '{INCARNATION}'")

            def decide(view: View, _revision: int, _now: int) -> list[Change]:
                seen.append(view.incarnation)
                return []

            await commit(engine, ["a"], decide)
            assert await read(engine, "a") is not None
            return [*seen, engine.incarnation]

    assert run(scenario()) == [ANOTHER, INCARNATION, INCARNATION]
