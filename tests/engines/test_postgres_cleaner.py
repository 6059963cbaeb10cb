"""Only one of several servers on a database gets what has expired."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from databases import Database, commit, database_for, opened, run

from leasehold.engines.postgres import cleaner
from leasehold.engines.postgres.space import PostgresSpace
from leasehold.model import ENTRY, AnyKind, Change, Entry, View

EXPIRED = [(ENTRY, "a")]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_for(tmp_path).create()


def expiring(_view: View, revision: int, now: int) -> Sequence[Change]:
    return [Entry("a", b"1", revision + 1, now, now, now + 1)]


async def until_expired(engine: PostgresSpace) -> Sequence[tuple[AnyKind, str]]:
    while not (found := await engine.expired(10)):  # noqa: ASYNC110 - the event is the passing of time
        await asyncio.sleep(0.01)
    return found


def test_only_the_first_server_that_asks_gets_what_has_expired(database: Database) -> None:
    async def scenario() -> None:
        async with opened(database.url) as first, opened(database.url) as second:
            assert await commit(first, ["a"], expiring) is None
            assert await until_expired(first) == EXPIRED
            for _ in range(3):
                assert (await first.expired(10), await second.expired(10)) == (EXPIRED, [])

    run(scenario())


def test_another_server_becomes_the_cleaner_at_once_when_the_cleaner_stops(database: Database) -> None:
    async def scenario() -> None:
        async with opened(database.url) as second:
            async with opened(database.url) as first:
                assert await commit(first, ["a"], expiring) is None
                assert await until_expired(first) == EXPIRED
                assert await second.expired(10) == []
            assert await second.expired(10) == EXPIRED

    run(scenario())


def test_another_server_becomes_the_cleaner_if_the_cleaner_is_silent_for_too_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with opened(database.url) as first, opened(database.url) as second:
            assert await commit(first, ["a"], expiring) is None
            assert await until_expired(first) == EXPIRED
            assert await second.expired(10) == []
            monkeypatch.setattr(cleaner, "CLEANER_SECONDS", 0.1)
            monkeypatch.setattr(cleaner, "SIGN_SECONDS", 0.0)
            assert await until_expired(second) == EXPIRED

    run(scenario())


def test_a_server_writes_nothing_while_nothing_has_expired(database: Database) -> None:
    async def scenario() -> None:
        async with opened(database.url) as engine:
            assert await engine.expired(10) == []
            assert await asyncio.to_thread(database.fetch, "SELECT FROM writers") == []

    run(scenario())
