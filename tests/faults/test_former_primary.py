"""The PostgreSQL engine after a failover, while the former primary answers again: nothing comes from it any more."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
from databases import Database, PostgresServer, commit, opened, read, read_record, run, writing
from replication import Pair
from running import ANSWER_SECONDS

from leasehold.engines.postgres import committer, fault, links
from leasehold.engines.postgres import database as shared
from leasehold.engines.postgres.failures import FAILURES
from leasehold.engines.postgres.links import Address, Link
from leasehold.engines.postgres.space import PostgresSpace
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, LEASE, Entry

OLD: Final = b'"old"'
NEW: Final = b'"new"'


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as pair:
        Database(pair.primary.url, "former").create()
        yield pair


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a silent server up sooner, but late enough that a busy machine does not look like one."""
    monkeypatch.setattr(committer, "SILENCE_SECONDS", 1.0)


@asynccontextmanager
async def old_entry(pair: Pair) -> AsyncIterator[PostgresSpace]:
    """A space with the entry `k`. All its connections for reads and lists are in use."""
    async with opened(Database(pair.primary.url, "former").at(pair.hosts)) as space:
        assert await commit(space, ["k"], writing("k", OLD)) is None
        assert await seen(space) == {OLD}
        yield space


async def write(space: PostgresSpace) -> None:
    """Write the new value, as soon as a primary takes it."""
    async with asyncio.timeout(ANSWER_SECONDS):
        while await commit(space, ["k"], writing("k", NEW)) is not None:
            await space.recover()


async def _read_twice(space: PostgresSpace) -> list[Entry | ServiceError | None]:
    """Two reads at once, for which the two connections are needed."""
    found, _ = await asyncio.gather(read(space, "k"), read_record(space, LEASE, "none"))
    return [found]


async def _scan(space: PostgresSpace) -> list[Entry]:
    return [*(await space.scan(ENTRY, "", None, 10)).records]


async def _read_all(space: PostgresSpace) -> list[Entry]:
    return [entry async for page in space.read_all(ENTRY, ["k"]) for entry in page.records]


async def _back_up(space: PostgresSpace) -> list[Entry]:
    moment = await space.moment()
    return [entry async for page in moment.pages for entry in page]


async def _changes(space: PostgresSpace) -> list[object]:
    return [*(await space.changes(ENTRY, 0, "", 10)).changes]


async def seen(space: PostgresSpace) -> set[object]:
    """The values of the entry that each way to read it returns, or the codes of errors."""
    ways = (_read_twice, _read_twice, _read_twice, _scan, _scan, _read_all, _changes, _back_up)
    results = await asyncio.gather(*(way(space) for way in ways), return_exceptions=True)
    found: set[object] = set()
    for result in results:
        records = result if isinstance(result, list) else [result]
        for record in records:
            assert isinstance(record, Entry | ServiceError), record
            found.add(record.value if isinstance(record, Entry) else record.code)
    return found


def test_everything_is_read_from_the_new_primary_after_a_write_on_it(pair: Pair) -> None:
    async def scenario() -> None:
        async with old_entry(pair) as space:
            await asyncio.to_thread(pair.freeze_and_promote)
            await write(space)
            await asyncio.to_thread(pair.thaw_former)
            assert await seen(space) == {NEW}

    run(scenario())


def test_the_former_primary_is_not_used_even_if_no_other_server_answers(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with old_entry(pair) as space:
            await asyncio.to_thread(pair.freeze_and_promote)
            await write(space)
            await asyncio.to_thread(pair.thaw_former)
            with monkeypatch.context() as patch:
                patch.setattr(fault, "RETRY_SECONDS", 1.0)
                await asyncio.to_thread(pair.primary.stop)
                assert await seen(space) == {"unavailable"}
                error = await commit(space, ["k"], writing("k", NEW))
                assert error is not None
            await asyncio.to_thread(pair.primary.start)
            await write(space)
            assert await seen(space) == {NEW}

    run(scenario())


def test_a_list_in_progress_is_repeated_on_the_new_primary_even_if_its_time_for_retries_has_ended(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with old_entry(pair) as space:
            monkeypatch.setattr(fault, "RETRY_SECONDS", 0.0)
            await asyncio.to_thread(pair.freeze_and_promote)
            listed = asyncio.get_running_loop().create_task(_scan(space))
            await write(space)
            assert [entry.key for entry in await listed] == ["k"]

    run(scenario())


def test_a_server_that_only_reads_finds_the_new_primary_while_the_former_one_answers(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "LOOK_SECONDS", 0.2)

    async def scenario() -> None:
        async with old_entry(pair) as space:
            await asyncio.to_thread(pair.freeze_and_promote)
            await asyncio.to_thread(pair.thaw_former)
            async with opened(Database(pair.primary.url, "former").url) as other:
                assert await commit(other, ["k"], writing("k", NEW)) is None
            async with asyncio.timeout(ANSWER_SECONDS):
                while await seen(space) != {NEW}:
                    pass
            assert await seen(space) == {NEW}

    run(scenario())


def test_a_host_that_was_silent_is_tried_last() -> None:
    async def sleep(connection: links.Connection) -> None:
        await connection.execute("SELECT pg_sleep(60)")

    async def scenario(server: PostgresServer) -> None:
        hosts = f"127.0.0.1:{server.port},localhost:{server.port}"
        link = Link(Address(Database(server.url, "public").at(hosts)))
        for name in ("127.0.0.1", "localhost", "127.0.0.1"):
            assert (await link.connected()).host.name == name
            with pytest.raises(FAILURES):
                await link.run(sleep, retry_seconds=0.0, silence=0.1)
        await link.close()

    with PostgresServer() as server:
        run(scenario(server))


def test_a_database_that_does_not_say_its_timeline_is_used() -> None:
    async def scenario(url: str) -> None:
        async with opened(url) as space:
            assert await commit(space, ["k"], writing("k", NEW)) is None
            assert await seen(space) == {NEW}

    with PostgresServer() as server:
        database = Database(server.url, "silent").create()
        role = database.as_role("plain")
        database.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        run(scenario(role.url))
