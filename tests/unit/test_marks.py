"""Tests that need root, a browser or a database have the mark that says so."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import databases
import pytest
from databases import STORES, Database, shared_server_url
from marks import uses_database
from running import START_SECONDS, clean_environment

ROOT = Path(__file__).parents[2]


def selected(expression: str, *files: str) -> list[str]:
    """The ids of the tests that a run with `-m` would run."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", expression, *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
        env=clean_environment(),
    )
    assert done.returncode in (0, 5), done.stdout + done.stderr  # 5: none
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_the_tests_of_an_engine_need_a_database_only_where_it_is_postgresql() -> None:
    files = ("tests/engines/test_conformance.py", "tests/engines/test_locks.py")
    chosen, left = selected("database", *files), selected("not database", *files)
    for names, kinds in ((chosen, ("TestPostgres::", "[postgres")), (left, ("TestMemory::", "TestFile::", "[memory"))):
        for kind in kinds:
            assert [name for name in names if kind in name] != []
            assert [name for name in (left if names is chosen else chosen) if kind in name] == []


@pytest.mark.parametrize(
    ("mark", "file"),
    [
        ("browser", "tests/http/test_browser.py"),
        ("root", "tests/faults/test_full_disk.py"),
        ("database", "tests/engines/test_postgres_cleaner.py"),
        ("database", "tests/faults/test_pgbouncer.py"),
    ],
)
def test_a_file_that_needs_something_throughout_is_left_out_without_it(mark: str, file: str) -> None:
    assert selected(f"not {mark}", file) == []
    assert selected(mark, file) != []


def test_most_unit_tests_need_nothing() -> None:
    assert (
        selected("root or browser or database", "tests/unit/test_rules_of_entries.py", "tests/unit/test_values.py")
        == []
    )


# What is seen -------------------------------------------------------------------------------------------------


def direct() -> str:
    return shared_server_url()


def by_another() -> str:
    return direct()


def by_a_module() -> object:
    return databases.database_for(Path())


def by_a_lambda() -> object:
    return [lambda: Database("", "name")]


def by_a_name(folder: Path) -> str:
    return STORES["postgres"](folder)


def without(folder: Path) -> str:
    return STORES["file"](folder)


def test_whoever_comes_to_a_database_by_names_is_seen() -> None:
    users: list[Callable[..., object]] = [direct, by_another, by_a_module, by_a_lambda, by_a_name]
    assert [uses_database(user) for user in users] == [True] * 5
    assert not uses_database(without)


def test_a_database_is_refused_to_a_test_without_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "allowed", False)
    with pytest.raises(AssertionError, match="lacks the mark"):
        shared_server_url()
    with pytest.raises(AssertionError, match="lacks the mark"):
        object.__new__(databases.PostgresServer).start()
