"""Statements that are sent together: what asyncpg and PostgreSQL do with them, and how parameters are encoded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from databases import Database, commit, counting, database_for, opened, run, writing
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy import Proxy

from leasehold.engines.postgres import head_statements, messages, notifications
from leasehold.engines.postgres.links import Address
from leasehold.engines.postgres.pipeline import Pipeline
from leasehold.model import Content

INT8 = st.integers(-(2**63), 2**63 - 1)
TIMES = st.integers(0, 253_402_300_799_999_999)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
SET = "INSERT INTO numbers VALUES ($1)"
ALL = "SELECT number FROM numbers ORDER BY number"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_for(tmp_path).create()


@asynccontextmanager
async def pipeline_on(url: str) -> AsyncIterator[Pipeline]:
    connection = await Address(url).connect()
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS numbers (number bigint PRIMARY KEY)")
        yield Pipeline(connection)
    finally:
        connection.terminate()


async def stored(database: Database) -> list[int]:
    connection = await asyncpg.connect(database.url)
    try:
        return [row[0] for row in await connection.fetch(ALL)]
    finally:
        await connection.close()


def test_statements_are_executed_in_order_and_the_last_one_gives_rows_and_status(database: Database) -> None:
    async def scenario() -> None:
        async with pipeline_on(database.url) as pipeline:
            for _ in range(2):  # the first time, they are prepared
                await pipeline.add(head_statements.BEGIN)
                await pipeline.add(SET, 1)
                await pipeline.add(SET, 2)
                assert [row[0] for row in await pipeline.fetch(ALL)] == [1, 2]
                assert await stored(database) == []
                assert pipeline.connection.is_in_transaction()
                assert await pipeline.execute(head_statements.ROLLBACK) == "ROLLBACK"
            await pipeline.add(head_statements.BEGIN)
            await pipeline.add(SET, 3)
            assert await pipeline.execute(head_statements.COMMIT) == "COMMIT"
            assert not pipeline.connection.is_in_transaction()
            assert await stored(database) == [3]

    run(scenario())


def test_a_failed_statement_leaves_the_transaction_open_and_skips_the_commit(database: Database) -> None:
    async def scenario() -> None:
        async with pipeline_on(database.url) as pipeline:
            await pipeline.add(SET, 1)
            await pipeline.execute(head_statements.COMMIT)
            await pipeline.add(head_statements.BEGIN)
            assert len(await pipeline.fetch(ALL)) == 1
            await pipeline.add(SET, 2)
            await pipeline.add(SET, 1)
            with pytest.raises(asyncpg.UniqueViolationError):
                await pipeline.execute(head_statements.COMMIT)
            assert pipeline.connection.is_in_transaction()
            assert not pipeline.connection.is_closed()
            assert await stored(database) == [1]

    run(scenario())


def test_a_commit_that_fails_by_itself_ends_the_transaction(database: Database) -> None:
    """So it can be told from a COMMIT that was skipped."""

    async def scenario() -> None:
        async with pipeline_on(database.url) as pipeline:
            await pipeline.connection.execute(
                "CREATE TABLE late (number bigint REFERENCES numbers DEFERRABLE INITIALLY DEFERRED)"
            )
            await pipeline.add(head_statements.BEGIN)
            assert await pipeline.fetch(ALL) == []
            await pipeline.add("INSERT INTO late VALUES (7)")
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                await pipeline.execute(head_statements.COMMIT)
            assert not pipeline.connection.is_in_transaction()

    run(scenario())


def test_nothing_is_sent_on_a_closed_connection(database: Database) -> None:
    async def scenario() -> None:
        async with pipeline_on(database.url) as pipeline:
            await pipeline.add(SET, 1)
            await pipeline.execute(head_statements.COMMIT)
            await pipeline.add(SET, 2)
            pipeline.connection.terminate()
            with pytest.raises(asyncpg.InterfaceError):
                await pipeline.execute(head_statements.COMMIT)
            assert await stored(database) == [1]

    run(scenario())


def test_a_batch_has_two_round_trips(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by the answers of the database: a chunk of an answer comes only after the request before it."""
    # A batch without a notification is another statement. To prepare it is a round trip, once for each connection.
    monkeypatch.setattr(notifications, "INTERVAL_SECONDS", 0.0)

    class Trips:
        """A request that follows an answer begins a round trip."""

        count = 0
        answered = True

        def to_server(self, _data: bytes) -> None:
            self.count += self.answered
            self.answered = False

        def to_client(self, _data: bytes) -> None:
            self.answered = True

    async def scenario() -> None:
        trips = Trips()
        async with Proxy(database.port) as proxy, opened(database.url) as engine:
            engine._database.writer._link._address = Address(database.at(f"127.0.0.1:{proxy.port}"))
            engine._database.writer._link.drop()
            for _ in range(2):  # connects and prepares
                assert await commit(engine, ["n"], counting("n")) is None
            proxy.to_server, proxy.to_client = trips.to_server, trips.to_client
            for number in range(1, 11):
                assert await commit(engine, ["n"], counting("n")) is None
                assert trips.count == 2 * number
            async with opened(database.url) as other:
                assert await commit(other, ["n"], counting("n")) is None
                trips.count = 0
                assert await commit(engine, ["n"], counting("n")) is None
                assert trips.count == 2, "a commit of another server before it makes no difference"

    run(scenario())


def test_a_batch_that_is_refused_is_reported_at_once_as_not_stored(database: Database) -> None:
    """Its COMMIT was sent, too, but the database skipped it."""

    async def scenario() -> None:
        async with opened(database.url) as engine:
            assert await commit(engine, ["n"], counting("n")) is None
            connection = await asyncpg.connect(database.url)
            await connection.execute("ALTER TABLE data ADD CONSTRAINT mine CHECK (key <> 'refused')")
            await connection.close()
            attempts: list[int] = []

            def decide(*arguments: object) -> object:
                attempts.append(1)
                return writing("refused", b"1")(*arguments)  # type: ignore[arg-type]

            error = await commit(engine, ["refused"], decide)  # type: ignore[arg-type]
            assert error is not None
            assert error.message == "the database refused the operation"
            assert attempts == [1]
            assert await commit(engine, ["n"], counting("n")) is None

    run(scenario())


# Parameters -------------------------------------------------------------------------------------------------------

VALUES: dict[str, st.SearchStrategy[object]] = {
    "int8": INT8,
    "text": TEXTS,
    "timestamptz": TIMES,
    "uuid": st.uuids(),
    "bytea": st.binary(max_size=20).map(Content) | st.binary(max_size=20),
    "jsonb": st.sampled_from([b"1", b'{"a": [1, null]}', b'"\\u00e9"', b"[]"]),
}
ARRAYS = {f"{name}[]": st.lists(st.none() | values, max_size=5) for name, values in VALUES.items() if name != "uuid"}


@pytest.mark.parametrize("name", [*VALUES, *ARRAYS])
def test_a_value_is_encoded_as_asyncpg_encodes_it(database: Database, name: str) -> None:
    """PostgreSQL compares both: that of the pipeline is stored, that of asyncpg is a parameter of the query."""

    async def compare(pipeline: Pipeline, values: list[object]) -> None:
        await pipeline.connection.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS sent (number int8, value {name})")
        await pipeline.connection.execute("DELETE FROM sent")
        for number, value in enumerate(values):
            await pipeline.add(f"INSERT INTO sent VALUES ($1, $2::{name})", number, value)
        assert len(await pipeline.fetch("SELECT FROM sent")) == len(values)
        for number, value in enumerate(values):
            is_same = f"SELECT value IS NOT DISTINCT FROM $2::{name} FROM sent WHERE number = $1"
            assert await pipeline.connection.fetchval(is_same, number, value), value

    with asyncio.Runner() as runner:
        entered = pipeline_on(database.url)
        pipeline = runner.run(entered.__aenter__())

        @settings(deadline=None)
        @given(st.lists(st.none() | {**VALUES, **ARRAYS}[name], min_size=1, max_size=20))
        def all_are_equal(values: list[object]) -> None:
            runner.run(compare(pipeline, values))

        all_are_equal()
        runner.run(entered.__aexit__(None, None, None))


def test_each_type_that_can_be_sent_is_compared_with_asyncpg(database: Database) -> None:
    names = [*VALUES, *ARRAYS]
    types = database.fetch("SELECT unnest($1::text[]::regtype[])::oid", names)
    assert {row[0] for row in types} == set(messages.FIELDS)


def test_a_value_of_the_wrong_type_is_an_error_before_anything_is_sent(database: Database) -> None:
    async def scenario() -> None:
        async with pipeline_on(database.url) as pipeline:
            with pytest.raises((AttributeError, TypeError)):
                await pipeline.add("SELECT $1::text", UUID(int=1))
            assert pipeline._unsent == []

    run(scenario())
