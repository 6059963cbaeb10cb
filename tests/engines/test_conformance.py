"""Every engine keeps the contract of `engines.base`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance import DurableConformance, DurableNamespaceConformance, NamespaceConformance, SpaceConformance
from conformance.suite import commit_leases, commit_receipts, lease, receipt
from databases import ENGINES, database_for, vacate
from driving import Driver, FrozenClock

from leasehold.engines.base import Engine
from leasehold.engines.postgres.engine import PostgresEngine
from leasehold.engines.postgres.schema import MIGRATIONS, TABLES_BY_NAMESPACE


class TestMemory(SpaceConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return ENGINES["memory"](folder, clock)


class TestFile(DurableConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return ENGINES["file"](folder, clock)


@pytest.fixture
def _schema(tmp_path: Path) -> Iterator[None]:
    """Tests on PostgreSQL use the tables of one another, because new ones take longer than most tests."""
    yield
    vacate(tmp_path)


@pytest.mark.usefixtures("_schema")
class TestPostgres(DurableConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return ENGINES["postgres"](folder, clock)


class TestNamespacesInMemory(NamespaceConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return ENGINES["memory"](folder, clock)


class TestNamespacesInFiles(DurableNamespaceConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return ENGINES["file"](folder, clock)


@pytest.mark.usefixtures("_schema")
class TestNamespacesOnPostgres(DurableNamespaceConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return ENGINES["postgres"](folder, clock)


def test_every_engine_is_tested() -> None:
    tested = [TestMemory, TestFile, TestPostgres]
    assert len(tested) == len(ENGINES)
    durable = [name for name, make in ENGINES.items() if make(Path("unused"), FrozenClock()).durable]
    assert len(durable) == sum(issubclass(suite, DurableConformance) for suite in tested)


def test_tables_that_are_used_again_have_no_records(tmp_path: Path) -> None:
    clock = FrozenClock()
    database = database_for(tmp_path).create()
    with Driver(PostgresEngine(database.url, clock=clock).space()) as driver:
        driver.put("a")
        commit_leases(driver, lease("l", 2, clock))
        commit_receipts(driver, receipt("r", 3, clock.now + 1))
    database.execute("INSERT INTO deletions (namespace, revision, key) VALUES ('default', 1, 'b')")

    def filled() -> list[str]:
        return [table for table in TABLES_BY_NAMESPACE if database.fetch(f"SELECT FROM {table}")]

    assert filled() == list(TABLES_BY_NAMESPACE)
    database.empty()
    assert filled() == []
    assert len(database.fetch("SELECT FROM leasehold_migrations")) == len(MIGRATIONS)
