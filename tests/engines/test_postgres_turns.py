"""Servers that commit at the same time take turns: each takes its batch when it has locked the head."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from databases import Database, commit, counting, database_for, opened, read, run, until
from driving import json_text

from leasehold.engines.postgres import committer, fault, head_statements, writer
from leasehold.engines.postgres.committer import Committer
from leasehold.engines.postgres.pipeline import Pipeline
from leasehold.engines.postgres.space import PostgresSpace
from leasehold.engines.postgres.view import Loaded, Names
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, Entry, Touched

SECONDS = 30.0
"""More than anything here takes."""
IS_WAITING = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"
IS_NOT_WAITING = "SELECT count(*) = 0 FROM pg_locks WHERE NOT granted"
END_WHO_WAITS = (
    "SELECT count(pg_terminate_backend(pid)) = 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
)
"""True when it has ended the one session that waits."""


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_for(tmp_path).create()


@pytest.fixture(autouse=True)
def without_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine must not end the time in which a server expects others."""
    monkeypatch.setattr(committer, "CONTENDED_SECONDS", SECONDS)


@asynccontextmanager
async def contending(database: Database) -> AsyncIterator[tuple[PostgresSpace, PostgresSpace]]:
    """Two servers, of which the first takes turns: it has found a commit of the other one between two of its own."""
    async with opened(database.url) as one, opened(database.url) as other:
        for space in (one, other, one):
            assert await commit(space, ["a"], counting("a")) is None
        yield one, other


@asynccontextmanager
async def waiting_for_its_turn(database: Database, space: PostgresSpace) -> AsyncIterator["Asked"]:
    """A caller of `space`, which cannot lock the head until the end of the block."""
    blocker = await asyncpg.connect(database.url)
    await blocker.execute("BEGIN; SELECT * FROM head FOR UPDATE")
    asked = Asked(space)
    await until(database, IS_WAITING)
    try:
        yield asked
    finally:
        await blocker.execute("COMMIT")
        await blocker.close()


class Asked:
    """A caller that commits one more at "a" in its turn."""

    def __init__(self, space: PostgresSpace, *, commits: bool = True) -> None:
        self._space = space
        self._commits = commits
        self.turns = 0
        self.end: asyncio.Future[ServiceError | None] = asyncio.get_running_loop().create_future()
        wait = space.turn
        assert wait is not None
        wait(self._ready)

    def _ready(self) -> None:
        self.turns += 1
        if self._commits:
            self._space.commit(Touched({ENTRY: ["a"]}), counting("a"), self.end.set_result)


async def number(space: PostgresSpace) -> int:
    entry = await read(space, "a")
    assert isinstance(entry, Entry)
    value = int(json_text(entry.value))
    assert value == entry.revision
    return value


def test_a_server_that_commits_alone_takes_no_turns(database: Database) -> None:
    async def scenario() -> None:
        async with opened(database.url) as one, opened(database.url) as other:
            assert await commit(other, ["a"], counting("a")) is None
            for _ in range(3):
                assert await commit(one, ["a"], counting("a")) is None
            assert one._committer.is_contended  # by the commit of the other before its first one
            monotonic = asyncio.get_running_loop().time()
            one._committer._contended_until = monotonic - 1
            assert await commit(one, ["a"], counting("a")) is None
            assert one.turn is None
            assert await commit(other, ["a"], counting("a")) is None
            assert other.turn is not None

    run(scenario())


def test_the_batch_is_taken_when_the_head_is_locked(database: Database) -> None:
    async def scenario() -> None:
        async with contending(database) as (one, other):
            async with waiting_for_its_turn(database, one) as asked:
                assert asked.turns == 0
            assert await asked.end is None
            assert asked.turns == 1
            assert await number(other) == 4

    run(scenario())


def test_turns_of_two_servers_lose_no_commit(database: Database) -> None:
    async def write(space: PostgresSpace) -> None:
        for _ in range(50):
            assert await Asked(space).end is None if space.turn else await commit(space, ["a"], counting("a")) is None

    async def scenario() -> None:
        async with contending(database) as (one, other):
            await asyncio.gather(write(one), write(other))
            assert await number(one) == 103

    run(scenario())


def test_a_turn_in_which_nothing_is_committed_ends(database: Database) -> None:
    async def scenario() -> None:
        async with contending(database) as (one, other):
            asked = Asked(one, commits=False)
            async with asyncio.timeout(SECONDS):
                assert one._committing is not None
                await one._committing
                assert asked.turns == 1
                assert await commit(other, ["a"], counting("a")) is None
                assert await commit(one, ["a"], counting("a")) is None
                assert await number(one) == 5

    run(scenario())


def test_a_turn_is_waited_for_again_if_the_connection_is_lost(database: Database) -> None:
    async def scenario() -> None:
        async with contending(database) as (one, other):
            async with waiting_for_its_turn(database, one) as asked:
                await until(database, END_WHO_WAITS)
                await until(database, IS_NOT_WAITING)
                await until(database, IS_WAITING)
                assert asked.turns == 0
            assert await asked.end is None
            assert asked.turns == 1
            assert await number(other) == 4

    run(scenario())


def test_a_server_that_stops_while_it_sends_a_batch_does_not_keep_the_lock(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session is not idle, so the timeout for idle transactions does not end it."""

    async def scenario() -> None:
        async with opened(database.url) as other:
            monkeypatch.setattr(writer, "TRANSACTION_SECONDS", 1.0)
            async with opened(database.url) as one:
                pipeline = await one._database.writer.pipeline()
                await pipeline.add(head_statements.BEGIN)
                await pipeline.add(head_statements.LOCK_HEAD, "default")
                pipeline._send()
                await until(database, "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'transactionid' AND granted")
                assert await commit(other, ["a"], counting("a")) is None
                assert await number(one) == 1

    run(scenario())


def test_a_batch_is_repeated_if_its_connection_is_dropped_when_it_has_just_been_loaded(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was stopped in its turn gets the answer, and its time limit has passed."""
    load = Committer._load
    dropped: list[Pipeline] = []

    async def drop(self: Committer, pipeline: Pipeline, names: Names, *, is_locked: bool = False) -> Loaded:
        loaded = await load(self, pipeline, names, is_locked=is_locked)
        if not dropped:
            dropped.append(pipeline)
            pipeline.connection.terminate()
        return loaded

    async def scenario() -> None:
        async with opened(database.url) as one:
            monkeypatch.setattr(Committer, "_load", drop)
            assert await commit(one, ["a"], counting("a")) is None
            assert len(dropped) == 1
            assert await number(one) == 1

    run(scenario())


@pytest.mark.parametrize("failure", [OSError(), MemoryError()], ids=["of the database", "unexpected"])
def test_the_caller_gets_the_error_if_the_head_cannot_be_locked(
    database: Database, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    async def fail(_committer: Committer, _pipeline: Pipeline) -> None:
        raise failure

    async def scenario() -> None:
        async with contending(database) as (one, other):
            with monkeypatch.context() as patch:
                patch.setattr(Committer, "_lock", fail)
                patch.setattr(fault, "RETRY_SECONDS", 0.0)
                asked = Asked(one)
                async with asyncio.timeout(SECONDS):
                    error = await asked.end
            assert asked.turns == 1
            assert error is not None
            assert error.code == ("unavailable" if isinstance(failure, OSError) else "internal")
            await one.recover()
            assert one.fault is None
            assert await commit(one, ["a"], counting("a")) is None
            assert await number(other) == 4

    run(scenario())
