"""The database is available and refuses one operation or all writes; and what the log says about failures."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from databases import Database, PostgresServer, commit, counting, database_for, opened, read, run, writing
from running import refusal, running, until

from leasehold.engines.postgres import failures, fault, record_statements
from leasehold.engines.postgres.committer import Committer
from leasehold.engines.postgres.failures import Reports, as_service_error, is_refusal, is_transient
from leasehold.engines.postgres.pipeline import Pipeline
from leasehold.engines.postgres.space import PostgresSpace
from leasehold.engines.postgres.view import Loaded, Names
from leasehold.errors import ServiceError
from leasehold.model import ENTRY

ROLE = "restricted"
HARMS = {
    "the entries' table is renamed": ("ALTER TABLE data RENAME TO gone", "ALTER TABLE gone RENAME TO data"),
    "the leases' table is renamed": ("ALTER TABLE locks RENAME TO gone", "ALTER TABLE gone RENAME TO locks"),
    "a column is renamed": ("ALTER TABLE data RENAME exact TO gone", "ALTER TABLE data RENAME gone TO exact"),
    "entries may not be inserted": (f"REVOKE INSERT ON data FROM {ROLE}", f"GRANT INSERT ON data TO {ROLE}"),
    "the head may not be updated": (f"REVOKE UPDATE ON head FROM {ROLE}", f"GRANT UPDATE ON head TO {ROLE}"),
    "deletions may not be removed": (f"REVOKE DELETE ON deletions FROM {ROLE}", f"GRANT DELETE ON deletions TO {ROLE}"),
    "batches may not be noted": (f"REVOKE INSERT ON batches FROM {ROLE}", f"GRANT INSERT ON batches TO {ROLE}"),
    "batches may not be signed": (f"REVOKE UPDATE ON writers FROM {ROLE}", f"GRANT UPDATE ON writers TO {ROLE}"),
}
NO_WRITES = "the database refuses all writes now"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A database with a role that is not a superuser, so that its rights can be revoked."""
    return database_for(tmp_path).create().as_role(ROLE)


def fault_in(engine: PostgresSpace) -> str | None:
    return None if engine.fault is None else engine.fault.message


async def answered_suspicions(engine: PostgresSpace) -> None:
    """Wait until the engine has checked whether all writes are refused."""
    await asyncio.gather(*engine._fault.attempts)


@pytest.mark.parametrize(("harm", "remedy"), HARMS.values(), ids=HARMS)
def test_refused_writes_are_a_fault_until_writes_succeed(database: Database, harm: str, remedy: str) -> None:
    async def scenario() -> None:
        async with opened(database.url) as engine:
            assert await commit(engine, ["n"], counting("n")) is None
            await asyncio.to_thread(database.execute, harm)
            await engine._fault.try_to_write()
            assert fault_in(engine) == NO_WRITES
            error = await commit(engine, ["n"], counting("n"))
            assert error is not None
            assert (error.code, error.message) == ("unavailable", NO_WRITES)
            await engine.recover()
            assert fault_in(engine) == NO_WRITES
            await asyncio.to_thread(database.execute, remedy)
            await engine.recover()
            assert fault_in(engine) is None
            assert await commit(engine, ["n"], counting("n")) is None
            assert engine.revision == 2

    run(scenario())


def test_a_refused_operation_makes_the_engine_check_whether_all_writes_are_refused(database: Database) -> None:
    async def scenario() -> None:
        async with opened(database.url) as engine:
            await asyncio.to_thread(database.execute, HARMS["the entries' table is renamed"][0])
            error = await commit(engine, ["n"], counting("n"))
            assert error is not None
            assert error.message == "the database refused the operation"
            await answered_suspicions(engine)
            assert fault_in(engine) == NO_WRITES
        await asyncio.to_thread(database.execute, HARMS["the entries' table is renamed"][1])
        async with opened(database.url) as engine:
            await asyncio.to_thread(database.execute, HARMS["the entries' table is renamed"][0])
            assert isinstance(await read(engine, "n"), ServiceError)
            await answered_suspicions(engine)
            assert fault_in(engine) == NO_WRITES

    run(scenario())


def test_a_refusal_of_a_single_caller_is_not_a_fault(database: Database) -> None:
    async def scenario() -> None:
        async with opened(database.url) as engine:
            await asyncio.to_thread(database.execute, "ALTER TABLE data ADD CHECK (key <> 'refused')")
            for _ in range(3):
                error = await commit(engine, ["refused"], writing("refused", b"1"))
                assert error is not None
                assert error.message == "the database refused the operation"
                await answered_suspicions(engine)
                assert fault_in(engine) is None
                assert await commit(engine, ["n"], counting("n")) is None

    run(scenario())


def test_an_empty_commit_changes_nothing_and_matches_no_batch(database: Database) -> None:
    async def scenario() -> None:
        async with opened(database.url) as engine:
            assert await commit(engine, ["n"], counting("n")) is None
            before = await asyncio.to_thread(contents, database)
            for _ in range(2):
                await engine._fault.try_to_write()
            assert await asyncio.to_thread(contents, database) == before
            batches = await asyncio.to_thread(database.fetch, "SELECT writer, batch FROM writers ORDER BY batch")
            assert [tuple(row) for row in batches] == [
                (engine._database.probe_id, 0),
                (engine._committer.writer_id, 1),
            ]

    run(scenario())


def contents(database: Database) -> list[object]:
    tables = ("data", "head", "locks", "deletions", "batches")
    return [tuple(row) for table in tables for row in database.fetch(f"SELECT * FROM {table}")]


def test_a_service_whose_writes_are_refused_is_degraded_until_they_succeed(
    database: Database,
) -> None:
    with running(database.url) as server:
        assert server.put("a", "1").status_code == 201
        database.execute(HARMS["entries may not be inserted"][0])
        assert refusal(server.put("a", "2")) == (503, "unavailable")
        until(lambda: server.request("GET", "/health").status_code == 503)
        health = server.request("GET", "/health").json()
        assert (health["status"], health["message"]) == ("degraded", NO_WRITES)
        assert server.value("a") == 1
        database.execute(HARMS["entries may not be inserted"][1])
        until(lambda: server.request("GET", "/health").status_code == 200)
        assert server.put("a", "2").status_code == 200


# Transient failures -------------------------------------------------------------------------------------------

PASSING = (
    *("08006", "08P01", "25006", "25P03", "26000", "40001", "40P01", "42P05", "53200", "53300", "55P03", "57014"),
    *("57P01", "57P03", "58000", "58030"),
)
LASTING = (
    *("0A000", "21000", "22003", "22P02", "23505", "23514", "28000", "28P01", "3D000", "3F000", "40002", "42501"),
    *("42703", "42P01", "42601", "53400", "54000", "54023", "58P01", "P0001", "XX000", "XX001"),
)


def failure_of(code: str) -> asyncpg.PostgresError:
    failure = asyncpg.PostgresError("a reason")
    failure.__dict__["sqlstate"] = code  # as asyncpg does it
    return failure


@pytest.mark.parametrize("code", PASSING)
def test_a_transient_failure_is_retried(code: str) -> None:
    assert is_transient(failure_of(code))
    assert not is_refusal(failure_of(code))


@pytest.mark.parametrize("code", LASTING)
def test_a_permanent_failure_is_reported_as_a_refusal_and_not_as_an_outage(code: str) -> None:
    assert not is_transient(failure_of(code))
    assert as_service_error(failure_of(code)).message == "the database refused the operation"


def test_an_unsupported_statement_is_refused_and_one_changed_by_a_migration_is_retried(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[asyncpg.PostgresError] = []
    load = Committer._load

    async def _load(self: Committer, pipeline: Pipeline, names: Names, *, is_locked: bool = False) -> Loaded:
        if raised:
            raise raised.pop()
        return await load(self, pipeline, names, is_locked=is_locked)

    monkeypatch.setattr(Committer, "_load", _load)

    async def scenario() -> None:
        async with opened(database.url) as engine:
            raised[:] = [asyncpg.InvalidCachedStatementError("cached plan must not change result type")]
            assert await commit(engine, ["n"], counting("n")) is None
            raised[:] = [asyncpg.FeatureNotSupportedError("could not create distributed plan")] * 2
            error = await commit(engine, ["n"], counting("n"))
            assert error is not None
            assert error.message == "the database refused the operation"
            assert len(raised) == 1

    run(scenario())


# The log ------------------------------------------------------------------------------------------------------


def test_similar_failures_are_logged_at_intervals_with_their_number() -> None:
    lines: list[tuple[str, dict[str, object]]] = []
    now = [100.0]
    reports = Reports(lambda: now[0])

    def write(event: str, **facts: object) -> None:
        lines.append((event, facts))

    for _ in range(3):
        reports.log(write, "refused", failure_of("42501"))
    reports.log(write, "refused", failure_of("42P01"))
    now[0] += failures.REPORT_SECONDS
    reports.log(write, "refused", failure_of("42501"))
    reports.log(write, "away", OSError(), by_sqlstate=False)
    reports.log(write, "away", TimeoutError(), by_sqlstate=False)
    assert lines == [
        ("refused", {"sqlstate": "42501", "reason": "a reason"}),
        ("refused", {"sqlstate": "42P01", "reason": "a reason"}),
        ("refused", {"sqlstate": "42501", "reason": "a reason", "repeated": 2}),
        ("away", {"kind": "OSError"}),
    ]


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


def test_an_outage_is_logged_at_its_beginning_and_its_end(
    own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fault, "RETRY_SECONDS", 2.0)

    async def scenario() -> None:
        async with opened(own_server.url) as engine:
            assert await commit(engine, ["n"], counting("n")) is None
            capsys.readouterr()
            await asyncio.to_thread(own_server.stop)
            try:
                error = await commit(engine, ["n"], counting("n"))
            finally:
                await asyncio.to_thread(own_server.start)
            assert error is not None
            assert error.message == "the database cannot be reached now"
            while engine.fault is not None:
                await engine.recover()
            assert await commit(engine, ["n"], counting("n")) is None

    run(scenario())
    lines = [line.split("]", 1)[1].split("  ")[0].strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "a commit is tried again",
        "the database cannot be used",
        "the database can be written again",
    ]


def test_a_refused_statement_is_logged_with_its_sqlstate(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record_statements.OF_KIND[ENTRY], "read", "SELECT absent FROM data")

    async def scenario() -> None:
        async with opened(database.url) as engine:
            for _ in range(5):
                assert isinstance(await read(engine, "n"), ServiceError)

    run(scenario())
    refused = [line for line in capsys.readouterr().out.splitlines() if "refused a statement" in line]
    assert len(refused) == 1
    assert "sqlstate=42703" in refused[0]
