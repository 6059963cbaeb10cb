"""What tests of a running service share, and what becomes of tests that need what this machine lacks."""

from collections.abc import Iterator
from itertools import count

import pytest
from databases import STORES
from programs import left_out, require
from running import Server, running

_numbers = count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): what the machine must have; see tests/programs.py")


def pytest_runtest_setup(item: pytest.Item) -> None:
    require(name for mark in item.iter_markers("needs") for name in mark.args)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    lacks = left_out(report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple))
    if lacks:
        terminalreporter.section("tests left out on this machine", yellow=True)
        for lack, tests in sorted(lacks.items()):
            terminalreporter.line(f"{tests} for want of {lack}")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server that keeps nothing on disk, shared by all tests; each uses keys of its own."""
    with running() as shared:
        yield shared


@pytest.fixture(scope="session", params=STORES)
def any_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A shared server on each engine, for what depends on how changes are kept and committed.

    A module of which all tests do so has a `server` of its own that is this one.
    """
    with running(STORES[request.param](tmp_path_factory.mktemp("store"))) as shared:
        yield shared


@pytest.fixture(scope="session", params=STORES)
def still_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """As `any_server`, for tests that count revisions: nothing in it expires, which would take one at any moment."""
    with running(STORES[request.param](tmp_path_factory.mktemp("store"))) as shared:
        yield shared


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return f"entry-{next(_numbers):05}"


@pytest.fixture
def lock() -> str:
    """A lock that no other test uses."""
    return f"lock-{next(_numbers):05}"
