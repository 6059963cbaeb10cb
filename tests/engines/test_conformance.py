"""Every engine keeps the contract of `engines.base`."""

from pathlib import Path

from conformance import DurableConformance, DurableNamespaceConformance, NamespaceConformance, SpaceConformance
from databases import ENGINES
from driving import FrozenClock

from leasehold.engines.base import Engine


class TestMemory(SpaceConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return ENGINES["memory"](folder, clock)


class TestFile(DurableConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return ENGINES["file"](folder, clock)


class TestPostgres(DurableConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return ENGINES["postgres"](folder, clock)


class TestNamespacesInMemory(NamespaceConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return ENGINES["memory"](folder, clock)


class TestNamespacesInFiles(DurableNamespaceConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return ENGINES["file"](folder, clock)


class TestNamespacesOnPostgres(DurableNamespaceConformance):
    def make_engine(self, folder: Path, clock: FrozenClock) -> Engine:
        return ENGINES["postgres"](folder, clock)


def test_every_engine_is_tested() -> None:
    tested = [TestMemory, TestFile, TestPostgres]
    assert len(tested) == len(ENGINES)
    durable = [name for name, make in ENGINES.items() if make(Path("unused"), FrozenClock()).durable]
    assert len(durable) == sum(issubclass(suite, DurableConformance) for suite in tested)
