"""`leasehold distribute`: which steps are done, in which order, and what is refused; see `no_citus`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import Database, database_for, opened, run
from no_citus import functions_of_citus
from running import leasehold

from leasehold.engines.postgres import schema
from leasehold.engines.postgres.distribution import distribute
from leasehold.engines.postgres.links import Address
from leasehold.errors import ServiceError

OTHERS = ["batches", "data", "deletions", "locks", "receipts", "writers"]
EVERY_STEP = [
    ("head namespace default", True),
    *((f"{table} namespace head", True) for table in OTHERS),
    ("leasehold_migrations everywhere", True),
    *((f"{table} local rows removed", False) for table in ["head", *OTHERS]),
]
"""The calls, and whether servers were kept away."""


@pytest.fixture
def plain(tmp_path: Path) -> Database:
    """A database without the functions."""
    return database_for(tmp_path).create()


@pytest.fixture
def database(plain: Database) -> Iterator[Database]:
    with functions_of_citus(plain):
        yield plain


def calls(database: Database) -> list[tuple[str, bool]]:
    return [(row[0], row[1]) for row in database.fetch("SELECT call, in_use FROM calls ORDER BY number")]


def refusal(database: Database) -> str:
    with pytest.raises(ServiceError) as refused:
        run(distribute(database.url, now=1))
    return refused.value.message


def test_the_tables_are_created_and_distributed_by_namespace_beside_those_of_the_heads(database: Database) -> None:
    done = run(distribute(database.url, now=1))
    assert calls(database) == EVERY_STEP
    assert done.tables == ["head", *OTHERS]


def test_all_tables_of_the_migrations_are_distributed(database: Database) -> None:
    run(distribute(database.url, now=1))
    rows = database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
    assert {row[0] for row in rows} - {"pg_dist_partition", "calls"} == {"head", *OTHERS, "leasehold_migrations"}


def test_a_store_with_content_keeps_it(database: Database) -> None:
    async def scenario() -> None:
        async with opened(database.url):
            pass

    run(scenario())
    run(distribute(database.url, now=1))
    assert calls(database) == EVERY_STEP


def test_a_repetition_distributes_only_what_is_missing(database: Database) -> None:
    run(distribute(database.url, now=1))
    assert run(distribute(database.url, now=1)).tables == []
    database.execute("DELETE FROM pg_dist_partition WHERE logicalrelid = 'receipts'::regclass; TRUNCATE calls")
    assert run(distribute(database.url, now=1)).tables == ["receipts"]
    assert calls(database) == [("receipts namespace head", True), ("receipts local rows removed", False)]


def test_nothing_is_distributed_if_a_step_fails(database: Database) -> None:
    database.execute("ALTER FUNCTION create_reference_table RENAME TO missing")
    assert "run the same command again" in refusal(database)
    assert calls(database) == []


def test_a_database_in_use_is_refused(database: Database) -> None:
    async def scenario() -> None:
        async with opened(database.url):
            with pytest.raises(ServiceError) as refused:
                await distribute(database.url, now=1)
            assert refused.value.message == "the database is in use by a server; stop all servers first"

    run(scenario())
    assert calls(database) == []


def test_a_node_that_is_not_the_coordinator_is_refused(database: Database) -> None:
    database.execute("CREATE OR REPLACE FUNCTION citus_is_coordinator() RETURNS bool LANGUAGE sql AS 'SELECT false'")
    assert refusal(database) == "this is not the coordinator of the cluster; use its address"
    assert database.fetch("SELECT to_regclass('head')")[0][0] is None


def test_a_server_does_not_migrate_tables_that_are_distributed(database: Database) -> None:
    run(distribute(database.url, now=1))
    newer = [*schema.load_scripts(), "ALTER TABLE head ADD COLUMN newer int"]

    async def deploy(*, may_migrate_distributed: bool) -> None:
        connection = await Address(database.url).connect()
        try:
            await schema.deploy(connection, newer, now=1, may_migrate_distributed=may_migrate_distributed)
        finally:
            await connection.close()

    with pytest.raises(ServiceError) as refused:
        run(deploy(may_migrate_distributed=False))
    assert refused.value.message.endswith("run `leasehold distribute`")
    run(deploy(may_migrate_distributed=True))
    run(deploy(may_migrate_distributed=False))
    assert database.fetch("SELECT newer FROM head") == []


# The command --------------------------------------------------------------------------------------------------


def test_the_command_refuses_a_database_without_the_extension(plain: Database) -> None:
    done = leasehold("distribute", plain.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the database has no extension citus" in done.stderr
    assert plain.fetch("SELECT to_regclass('head')")[0][0] is None


def test_the_command_refuses_a_store_in_a_file(tmp_path: Path) -> None:
    done = leasehold("distribute", str(tmp_path / "data.json"))
    assert (done.returncode, done.stderr) == (2, "leasehold: only a store on PostgreSQL can be distributed\n")
    assert list(tmp_path.iterdir()) == []
