"""The PostgreSQL engine when the database fails: real servers, real kills, cut connections.

Each test counts in the database, so that a lost or repeated commit shows in the number. The faults here come at defined
moments; `test_database_faults` has faults of the whole service at random moments under load.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import asyncpg
import msgspec
import pytest
from databases import (
    Database,
    PostgresServer,
    commit,
    counting,
    database_for,
    opened,
    read,
    run,
    subscribed,
    until,
    writing,
)
from driving import json_text
from harness.postgres_faults import Cut, Cutter
from proxy import Proxy
from running import ANSWER_SECONDS

from leasehold.engines.postgres import change_writer, committer, fault, links, listener, pool, record_statements
from leasehold.engines.postgres.committer import Committer
from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.engines.postgres.links import Address
from leasehold.engines.postgres.pipeline import Pipeline
from leasehold.engines.postgres.space import PostgresSpace
from leasehold.engines.postgres.tables import TABLES, entries
from leasehold.engines.postgres.view import Loaded, Names
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, Change, Entry, View

_numbers = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server for faults. Each test leaves it running."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def frail(server: PostgresServer) -> Database:
    """A database on the server that fails."""
    return Database(server.url, f"frail_{next(_numbers)}").create()


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return database_for(tmp_path).create()


def give_up_after(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(fault, "RETRY_SECONDS", seconds)


async def number_in(engine: PostgresSpace, key: str = "n") -> tuple[int, int]:
    """The number and its revision. They are equal if no commit was lost or repeated."""
    entry = await read(engine, key)
    assert isinstance(entry, Entry), entry
    return int(json_text(entry.value)), entry.revision


def fault_in(engine: PostgresSpace) -> str | None:
    return None if engine.fault is None else engine.fault.code


# Lost answers to COMMIT ---------------------------------------------------------------------------------------

CUTS, LAST_CUTS = 20, 15


@asynccontextmanager
async def writing_through_a_proxy(database: Database) -> AsyncIterator[tuple[PostgresSpace, Cutter]]:
    """An engine whose writing connection goes through the proxy. It has committed twice."""
    async with Proxy(database.port) as proxy, opened(database.url) as engine:
        cutter = Cutter(proxy)
        engine._database.writer._link._address = Address(database.at(f"127.0.0.1:{proxy.port}"))
        engine._database.writer._link.drop()
        for _ in range(2):  # connects and prepares; later commits have the usual length
            assert await commit(engine, ["n"], counting("n")) is None
        yield engine, cutter


async def commit_with_cuts(database: Database) -> list[tuple[int, int]]:
    """Cut CUTS commits at bytes spread over a whole commit, LAST_CUTS of them after its COMMIT. Returns the numbers."""
    async with writing_through_a_proxy(database) as (engine, cutter):
        total = cutter.commit_bytes
        end = total - cutter.last_bytes
        last = [end + cutter.last_bytes * number // LAST_CUTS for number in range(LAST_CUTS)]
        rest = [end * number // (CUTS - LAST_CUTS) for number in range(CUTS - LAST_CUTS)]
        counts = []
        for cut_at in [*rest, *last]:
            cutter.order(Cut("a commit", cut_at))
            error = await commit(engine, ["n"], counting("n"))
            assert error is None, (cut_at, error.message)
            counts.append(await number_in(engine))
        assert cutter.cuts == len(counts) == CUTS
        return counts


def test_a_commit_cut_at_any_byte_is_done_once(database: Database) -> None:
    counts = run(commit_with_cuts(database))
    assert counts == [(number, number) for number in range(3, 3 + len(counts))]


def test_the_previous_test_detects_a_retry_after_an_unknown_commit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_stored(*_: object) -> bool:
        return False

    monkeypatch.setattr(Committer, "_is_stored", not_stored)
    counts = run(commit_with_cuts(database))
    assert counts[-1][0] > 2 + len(counts)


def test_a_commit_that_is_repeated_is_not_taken_for_one_of_another_server(database: Database) -> None:
    async def scenario() -> bool:
        async with writing_through_a_proxy(database) as (engine, cutter):
            cutter.order(Cut("a commit", cutter.commit_bytes - cutter.last_bytes))
            assert await commit(engine, ["n"], counting("n")) is None
            assert cutter.cuts == 1
            return engine._committer.is_contended

    assert not run(scenario())


def test_a_commit_whose_outcome_cannot_be_learnt_is_not_repeated(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object) -> bool:
        raise asyncpg.ConnectionDoesNotExistError("x")

    monkeypatch.setattr(Committer, "_is_stored", failing)
    give_up_after(monkeypatch, 0.5)
    monkeypatch.setattr(committer, "RESOLVE_SECONDS", 0.5)

    async def scenario() -> tuple[ServiceError | None, str | None, tuple[int, int]]:
        async with writing_through_a_proxy(database) as (engine, cutter):
            cutter.order(Cut("a commit", cutter.commit_bytes - 1))
            error = await commit(engine, ["n"], counting("n"))
            fault = fault_in(engine)
            await engine.recover()
            assert fault_in(engine) is None
            return error, fault, await number_in(engine)

    error, fault, count = run(scenario())
    assert error is not None
    assert fault == "unavailable"
    assert (error.code, error.message) == ("unavailable", "the change may or may not have been stored")
    assert count == (3, 3)


# Killed sessions ----------------------------------------------------------------------------------------------


def kill_sessions(database: Database) -> None:
    """Kill the sessions in a thread, because the event loop of the test is blocked meanwhile."""
    killer = threading.Thread(target=database.kill_sessions, kwargs={"wait_milliseconds": 2_000})
    killer.start()
    killer.join()


@pytest.mark.parametrize("step", ["load", "decide", "write", "COMMIT"])
def test_a_session_killed_before_any_step_of_a_commit_causes_no_error(
    frail: Database, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[str] = []

    def kill_before(name: str) -> None:
        if name == step and not killed:
            killed.append(name)
            kill_sessions(frail)

    finish, load, values = Committer._finish, Committer._load, entries.TABLE.values

    async def _finish(self: Committer, pipeline: Pipeline) -> None:
        kill_before("COMMIT")
        await finish(self, pipeline)

    async def _load(self: Committer, pipeline: Pipeline, names: Names, *, is_locked: bool = False) -> Loaded:
        kill_before("load")
        return await load(self, pipeline, names, is_locked=is_locked)

    def _values(of: Sequence[Entry]) -> tuple[Sequence[object] | None, ...]:
        kill_before("write")
        return values(of)

    def decide(view: View, revision: int, now: int) -> Sequence[Change]:
        kill_before("decide")
        return counting("n")(view, revision, now)

    async def scenario() -> None:
        async with opened(frail.url) as engine:
            assert await commit(engine, ["n"], counting("n")) is None
            monkeypatch.setattr(Committer, "_finish", _finish)
            monkeypatch.setattr(Committer, "_load", _load)
            table = msgspec.structs.replace(entries.TABLE, values=_values)
            monkeypatch.setattr(change_writer, "TABLES", {**TABLES, ENTRY: table})
            assert await commit(engine, ["n"], decide) is None
            assert await number_in(engine) == (2, 2)
            assert fault_in(engine) is None

    run(scenario())
    assert killed == [step]


def test_reads_and_lists_survive_kills_of_their_sessions(frail: Database) -> None:
    async def scenario() -> None:
        async with opened(frail.url) as engine:
            assert await commit(engine, ["n"], counting("n")) is None
            for _ in range(3):
                assert await number_in(engine) == (1, 1)
                assert len((await engine.scan(ENTRY, "", None, 10)).records) == 1
                kill_sessions(frail)
            assert await number_in(engine) == (1, 1)
            assert len((await engine.scan(ENTRY, "", None, 10)).records) == 1
            assert fault_in(engine) is None

    run(scenario())


def test_a_killed_listener_receives_notifications_again(frail: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "RELISTEN_SECONDS", 0.05)

    async def scenario() -> None:
        async with opened(frail.url) as here, opened(frail.url) as there:
            looked = "SELECT count(*) = 2 FROM pg_stat_activity WHERE query LIKE 'SELECT namespace, revision, inc%'"
            await until(frail, looked)
            kill_sessions(frail)
            await until(frail, looked)
            heard = subscribed(here, ENTRY)
            assert await commit(there, ["n"], counting("n")) is None
            async with asyncio.timeout(ANSWER_SECONDS):
                while await heard.get() != (1, None):
                    pass

    run(scenario())


def test_a_deadlock_is_retried(frail: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [asyncpg.DeadlockDetectedError("x"), asyncpg.SerializationError("x"), asyncpg.QueryCanceledError("x")]
    load = Committer._load

    async def _load(self: Committer, pipeline: Pipeline, names: Names, *, is_locked: bool = False) -> Loaded:
        loaded = await load(self, pipeline, names, is_locked=is_locked)
        if failures:
            raise failures.pop()
        return loaded

    monkeypatch.setattr(Committer, "_load", _load)

    async def scenario() -> None:
        async with opened(frail.url) as engine:
            assert await commit(engine, ["n"], counting("n")) is None
            assert await number_in(engine) == (1, 1)

    run(scenario())
    assert failures == []


def test_a_full_disk_is_a_fault_until_the_engine_recovers(frail: Database) -> None:
    """The fault is reported as the database reports it. Deletions may still succeed."""
    full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE '53100'; END $$"

    async def scenario() -> None:
        async with opened(frail.url) as engine:
            assert await commit(engine, ["n"], counting("n")) is None
            connection = await asyncpg.connect(frail.url)
            await connection.execute(full)
            await connection.execute(
                "CREATE TRIGGER full_disk BEFORE UPDATE ON data FOR EACH ROW EXECUTE FUNCTION full_disk()"
            )
            error = await commit(engine, ["n"], counting("n"))
            assert error is not None
            assert error.code == "storage_full"
            assert fault_in(engine) == "storage_full"
            assert await number_in(engine) == (1, 1)
            await connection.execute("DROP TRIGGER full_disk ON data")
            await connection.close()
            await engine.recover()
            assert fault_in(engine) is None
            assert await commit(engine, ["n"], counting("n")) is None

    run(scenario())


def test_a_statement_refused_by_the_database_leaks_nothing(frail: Database, capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> ServiceError | None:
        async with opened(frail.url) as engine:
            connection = await asyncpg.connect(frail.url)
            await connection.execute("ALTER TABLE data ADD CONSTRAINT mine CHECK (key <> 'secret')")
            await connection.close()
            return await commit(engine, ["secret"], writing("secret", b"1"))

    error = run(scenario())
    assert error is not None
    assert (error.code, error.message) == ("unavailable", "the database refused the operation")
    logged = capsys.readouterr().out
    assert "mine" in logged
    assert "secret" not in logged


def test_a_read_refused_by_the_database_does_not_block_writers(
    frail: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal of one statement is reported to its caller only."""

    async def scenario() -> None:
        async with opened(frail.url) as engine:
            with monkeypatch.context() as patch:
                for name in ("scan", "read"):
                    patch.setattr(record_statements.OF_KIND[ENTRY], name, "SELECT absent FROM data")
                assert isinstance(await read(engine, "n"), ServiceError)
                with pytest.raises(ServiceError, match="refused"):
                    await engine.scan(ENTRY, "", None, 1)
            assert fault_in(engine) is None
            assert await commit(engine, ["n"], counting("n")) is None

    run(scenario())


# Servers killed, stopped and frozen ---------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives up sooner, but late enough that a busy machine does not look like a database that is away."""
    give_up_after(monkeypatch, 1.5)
    monkeypatch.setattr(committer, "RESOLVE_SECONDS", 0.5)
    monkeypatch.setattr(committer, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr("leasehold.engines.postgres.reads.SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(links, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(pool, "LIST_SILENCE_SECONDS", 1.0)


AWAY: dict[str, tuple[Callable[[PostgresServer], object], Callable[[PostgresServer], object]]] = {
    "stopped": (PostgresServer.stop, PostgresServer.start),
    "frozen": (PostgresServer.freeze, PostgresServer.thaw),
}


@pytest.mark.parametrize(("leave", "return_"), AWAY.values(), ids=AWAY)
def test_a_database_that_stays_away_is_reported_at_once_and_not_asked_until_it_is_back(
    server: PostgresServer,
    frail: Database,
    leave: Callable[[PostgresServer], object],
    return_: Callable[[PostgresServer], object],
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        async with opened(frail.url) as engine:
            assert await commit(engine, ["n"], counting("n")) is None
            await asyncio.to_thread(leave, server)
            try:
                error = await commit(engine, ["n"], counting("n"))
                assert error is not None
                assert (error.code, error.headers) == ("unavailable", {"Retry-After": "1"})
                assert fault_in(engine) == "unavailable"
                with monkeypatch.context() as patch:
                    give_up_after(patch, 600.0)
                    async with asyncio.timeout(ANSWER_SECONDS):
                        again = await commit(engine, ["n"], counting("n"))
                assert again is not None
                found = await read(engine, "n")
                assert isinstance(found, ServiceError)
                assert found.code == "unavailable"
                with pytest.raises(ServiceError):
                    await engine.scan(ENTRY, "", None, 1)
                await engine.recover()
                assert fault_in(engine) == "unavailable"
            finally:
                await asyncio.to_thread(return_, server)
            async with asyncio.timeout(ANSWER_SECONDS):
                while fault_in(engine) is not None:
                    await engine.recover()
            assert await commit(engine, ["n"], counting("n")) is None
            assert await number_in(engine) == (2, 2)

    run(scenario())


@pytest.mark.parametrize(("leave", "return_"), AWAY.values(), ids=AWAY)
def test_closing_does_not_hang_while_the_database_is_away(
    server: PostgresServer,
    frail: Database,
    leave: Callable[[PostgresServer], object],
    return_: Callable[[PostgresServer], object],
) -> None:
    async def scenario() -> ServiceError | None:
        engine = PostgresEngine(frail.url).space()
        await engine.open()
        assert await commit(engine, ["n"], counting("n")) is None
        assert await number_in(engine) == (1, 1)
        await asyncio.to_thread(leave, server)
        try:
            waiting = asyncio.create_task(commit(engine, ["n"], counting("n")))
            await asyncio.sleep(0)
            async with asyncio.timeout(ANSWER_SECONDS):
                await engine.close()
                return await waiting
        finally:
            await asyncio.to_thread(return_, server)

    error = run(scenario())
    assert error is not None
    assert error.code == "unavailable"


def test_the_engine_follows_a_failover(database: Database, frail: Database, server: PostgresServer) -> None:
    """Two hosts. The first one starts to refuse writes, like a primary that becomes a standby."""
    hosts = f"127.0.0.1:{server.port},127.0.0.1:{database.port}"
    database_there = Database(database.at(hosts).partition("search_path")[0].rstrip("?"), database.schema)
    Database(server.url, database.schema).create()

    async def scenario() -> tuple[int, int]:
        async with opened(database_there.url) as engine, opened(database.url) as successor:
            assert await commit(engine, ["n"], counting("n")) is None
            assert await commit(successor, ["n"], counting("n")) is None
            assert await commit(successor, ["n"], counting("n")) is None
            admin = await asyncpg.connect(server.url)
            try:
                await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
                await admin.execute("SELECT pg_reload_conf()")
                await asyncio.to_thread(kill_sessions, frail)
                assert await commit(engine, ["n"], counting("n")) is None
            finally:
                await admin.execute("SET default_transaction_read_only = off")
                await admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
                await admin.execute("SELECT pg_reload_conf()")
                await admin.close()
            return await number_in(successor)

    assert run(scenario()) == (3, 3)
