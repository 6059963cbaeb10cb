"""Which answers to COMMIT count as durable, and the warning about a database with weaker settings."""

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from databases import Database, commit, counting, database_for, opened, run
from driving import Driver

from leasehold.engines import advance_store
from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.errors import ServiceError

ROLE = "careless"
WARN_ONCE = """
    CREATE SEQUENCE commits;
    CREATE FUNCTION warn_once() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('commits') = 1 THEN RAISE WARNING 'not quite done'; END IF;
        RAISE NOTICE 'nothing to worry about';
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER warn_once AFTER INSERT OR UPDATE ON data
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION warn_once();
    ALTER FUNCTION warn_once() OWNER TO careless;
    ALTER SEQUENCE commits OWNER TO careless;
"""
"""Of the commits of entries, the first is answered with a warning, and all of them with a notice."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database with a role whose settings a test can change."""
    database = database_for(tmp_path).create()
    database.as_role(ROLE)
    yield database
    database.execute(f"ALTER ROLE {ROLE} RESET ALL")


def of_the_role(database: Database) -> str:
    return database.as_role(ROLE).url


def test_a_commit_with_a_warning_is_done_once_and_verified_by_another_commit(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """The role has warnings turned off, which must make no difference."""
    database.execute(f"ALTER ROLE {ROLE} SET client_min_messages = error")
    url = of_the_role(database)

    async def scenario() -> None:
        async with opened(url) as engine:
            admin = await asyncpg.connect(database.url)
            await admin.execute(WARN_ONCE)
            await admin.close()
            assert await commit(engine, ["n"], counting("n")) is None
            assert engine.fault is None

    run(scenario())
    assert [tuple(row) for row in database.fetch("SELECT key, data, revision FROM data")] == [("n", "1", 1)]
    assert database.fetch("SELECT batch FROM writers")[0][0] == 1
    assert "a commit whose answer was lost is looked for" in capsys.readouterr().out


def test_an_advance_whose_commit_has_a_warning_is_reported_as_unknown(database: Database) -> None:
    with Driver(PostgresEngine(database.url).space()):
        database.execute(WARN_ONCE.replace("ON data", "ON head"))
    with pytest.raises(ServiceError) as caught:
        run(advance_store(database.url, by=1, now=0))
    assert caught.value.message.endswith("whether the change was made is unknown")


@pytest.mark.parametrize(
    ("value", "loss"),
    [
        ("off", "a crash of it loses acknowledged changes"),
        ("local", "no commit waits for a synchronous standby, so a failover may lose acknowledged changes"),
        ("remote_write", "a synchronous standby that crashes may lose acknowledged changes"),
    ],
)
def test_a_weaker_synchronous_commit_of_the_role_is_a_warning(
    database: Database, capsys: pytest.CaptureFixture[str], value: str, loss: str
) -> None:
    database.execute(f"ALTER ROLE {ROLE} SET synchronous_commit = {value}")
    with Driver(PostgresEngine(of_the_role(database)).space()):
        pass
    assert f"synchronous_commit is {value} in PostgreSQL: {loss}" in capsys.readouterr().out
