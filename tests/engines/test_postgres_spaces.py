"""Several spaces of one server share its connections."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from databases import Database, commit, counting, database_for, opened_space, read, run
from running import ANSWER_SECONDS

from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.engines.postgres.writer import Writer
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, Entry

SPACES = 20


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_for(tmp_path).create()


def test_the_number_of_connections_does_not_depend_on_the_number_of_spaces(database: Database) -> None:
    engine = PostgresEngine(f"{database.url}&application_name={database.schema}")
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{database.schema}'"

    async def scenario() -> int:
        """Use all spaces at the same time. Returns the number of connections after that."""
        async with AsyncExitStack() as stack:
            names = (f"n{number}" for number in range(SPACES))
            spaces = [await stack.enter_async_context(opened_space(engine.space(name))) for name in names]
            assert await asyncio.gather(*(commit(space, ["a"], counting("a")) for space in spaces)) == [None] * SPACES
            entries = await asyncio.gather(*(read(space, "a") for space in spaces))
            assert all(isinstance(entry, Entry) and entry.revision == 1 for entry in entries)
            pages = await asyncio.gather(*(space.scan(ENTRY, "", None, 10) for space in spaces))
            assert [page.revision for page in pages] == [1] * SPACES
            [row] = await asyncio.to_thread(database.fetch, sessions)
            return int(row[0])

    assert run(scenario()) == 6


def test_a_space_can_be_used_after_another_one_was_closed(database: Database) -> None:
    async def scenario() -> None:
        engine = PostgresEngine(database.url)
        async with opened_space(engine.space("stays")) as stays:
            async with opened_space(engine.space("goes")) as goes:
                assert await commit(goes, ["a"], counting("a")) is None
            assert await commit(stays, ["a"], counting("a")) is None
            assert isinstance(await read(stays, "a"), Entry)
            assert isinstance(await read(goes, "a"), ServiceError)
        async with opened_space(engine.space("goes")) as goes:
            assert isinstance(await read(goes, "a"), Entry)

    run(scenario())


@pytest.mark.parametrize("method", ["__aexit__", "_wake"])
def test_the_other_spaces_continue_after_a_commit_whose_end_has_failed(
    database: Database, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Also those that wait already."""
    real = getattr(Writer, method)
    calls = 0

    def fail_once(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise MemoryError
        return real(*arguments)

    async def scenario() -> None:
        engine = PostgresEngine(database.url)
        async with AsyncExitStack() as stack:
            spaces = [await stack.enter_async_context(opened_space(engine.space(name))) for name in ("a", "b", "c")]
            monkeypatch.setattr(Writer, method, fail_once)
            async with asyncio.timeout(ANSWER_SECONDS):
                ends = await asyncio.gather(*(commit(space, ["k"], counting("k")) for space in spaces))
            assert [end is None for end in ends] == [False, True, True]
            await spaces[0].recover()
            assert await commit(spaces[0], ["k"], counting("k")) is None

    run(scenario())
