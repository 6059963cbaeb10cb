"""Fixtures for tests of a running service, and the report of tests that need a program which this machine lacks."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import databases
import forked
import pytest
from callers import SECRET
from databases import STORES
from hypothesis import settings
from marks import add_marks
from order import long_first
from programs import left_out, require
from running import Server, Wire, running, until

# A busy machine may take longer for one example than the 200 ms that Hypothesis allows by default.
settings.register_profile("any machine", settings(), deadline=None)
settings.load_profile("any machine")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

_numbers = count(1)
PROGRAMS: Mapping[str, Sequence[str]] = {
    "fast": ("-m", "leasehold"),
    "general": (str(Path(__file__).with_name("general_path.py")),),
}


def pytest_configure(config: pytest.Config) -> None:
    forked.is_wanted = True
    config.addinivalue_line("markers", "needs(*names): what the machine must have; see tests/programs.py")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A script's shell starts a command with `&` like this. The programs that are tested would ignore it, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The garbage collector looks at no object that was made meanwhile, then or later: all stay until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function):
        add_marks(item)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = long_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    databases.allowed = item.get_closest_marker("database") is not None
    try:
        return (yield)
    finally:
        databases.allowed = True


def pytest_runtest_setup(item: pytest.Item) -> None:
    require(name for mark in item.iter_markers("needs") for name in mark.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = _judged((yield))
    _import_own_share([each for each in report.result or () if isinstance(each, pytest.Module)])
    return report


def _import_own_share(modules: Sequence[pytest.Module]) -> None:
    """Import some modules of a folder before the others, in each worker others.

    All workers collect all tests. In a new clone each would compile all modules, if all began with the same one.
    """
    worker, workers = (os.environ.get(f"PYTEST_XDIST_WORKER{end}", "") for end in ("", "_COUNT"))
    for module in modules[int(worker[2:]) :: int(workers)] if worker else ():
        try:
            _ = module.obj
        except (pytest.Collector.CollectError, pytest.skip.Exception):
            # Forget what was imported. pytest imports the module again in its turn, and reports this.
            begun = [name for name, each in sys.modules.items() if getattr(each, "__file__", "") == str(module.path)]
            for name in begun:
                del sys.modules[name]


def _judged(report: Report) -> Report:
    """The report of a test or a file. With `CI=true` one that was skipped has failed, whatever the reason."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"skipped with CI=true: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    lacks = left_out(report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple))
    if lacks:
        terminalreporter.section("tests skipped on this machine", yellow=True)
        for lack, tests in sorted(lacks.items()):
            terminalreporter.line(f"{tests} for want of {lack}")


@pytest.fixture(scope="session", params=PROGRAMS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server without a disk, shared by all tests. Each test uses its own keys.

    There are two: with the fast paths of requests, and without them.
    """
    with running(program=PROGRAMS[request.param]) as shared:
        yield shared


@pytest.fixture(scope="session", params=STORES)
def any_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A shared server for each engine, for tests of behaviour that may depend on the engine.

    A module in which all tests need this overrides `server` with it. The one without a disk has no fast paths: it
    reads as the one with files does, so that each test runs with and without them.
    """
    store = STORES[request.param](tmp_path_factory.mktemp("store"))
    with running(store, program=PROGRAMS["general" if request.param == "memory" else "fast"]) as shared:
        yield shared


@pytest.fixture(scope="session", params=STORES)
def still_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Like `any_server`, for tests that count revisions: nothing in it expires, because an expiry takes a revision."""
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


@pytest.fixture
def uuid() -> str:
    """A UUID that no other test uses, with letters in it."""
    return f"abcdef00-0000-4000-8000-{next(_numbers):012x}"


@pytest.fixture(scope="module")
def expired(server: Server) -> Iterator[Any]:
    """Expired leases of locks that are free since. Each test takes its own one.

    They expire together, so that the tests need not wait one after the other.
    """
    leases = [server.lease(f"expired-{next(_numbers)}", ttl=1) for _ in range(12)]
    until(lambda: all(server.is_free(lease["lock"]) for lease in leases))
    return iter(leases)


@pytest.fixture(scope="session")
def secret_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "secret"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def guarded(secret_file: Path) -> Iterator[Server]:
    """A server that asks for tokens."""
    environment = {"LEASEHOLD_AUTH_SECRET_FILE": str(secret_file)}
    with running(environment=environment, log_level="debug") as started:
        yield started


@pytest.fixture(scope="session", params=STORES)
def any_guarded(
    request: pytest.FixtureRequest, secret_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A shared server for each engine that asks for tokens. A module overrides `guarded` with it."""
    store = STORES[request.param](tmp_path_factory.mktemp("guarded"))
    with running(store, environment={"LEASEHOLD_AUTH_SECRET_FILE": str(secret_file)}) as shared:
        yield shared


@pytest.fixture
def wires(server: Server) -> Iterator[Callable[[], Wire]]:
    """Opens connections. They are closed after the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Wire(server))
