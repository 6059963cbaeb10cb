"""Tests that need root, a browser or a database have the mark that says so."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import databases
import pytest
from databases import STORES, Database, shared_server_url
from marks import uses_database
from running import START_SECONDS, clean_environment

ROOT = Path(__file__).parents[2]


MARKED_THROUGHOUT = [
    ("browser", "tests/http/test_browser.py"),
    ("root", "tests/faults/test_full_disk.py"),
    ("database", "tests/engines/test_postgres_cleaner.py"),
    ("database", "tests/faults/test_pgbouncer.py"),
]
OF_ENGINES = ("tests/engines/test_conformance.py", "tests/engines/test_locks.py")
PLUGIN = """
def pytest_collection_modifyitems(items):
    for item in items:
        print("marks", *{mark.name for mark in item.iter_markers()}, "::", item.nodeid)
"""


def collect(*arguments: str, plugins: Path = ROOT) -> list[str]:
    """The output of a pytest that runs no test. This takes a second or more, whatever it collects."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
        env=clean_environment() | {"PYTHONPATH": str(plugins)},
    )
    assert done.returncode in (0, 5), done.stdout + done.stderr  # 5: none
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, set[str]]:
    """The marks of each test in these files, by its id."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "marks_of_items.py").write_text(PLUGIN)
    files = [*(file for _, file in MARKED_THROUGHOUT), *OF_ENGINES]
    lines = [line for line in collect("-p", "marks_of_items", *files, plugins=folder) if line.startswith("marks ")]
    found = (line.removeprefix("marks ").split(":: ", maxsplit=1) for line in lines)
    return {name: set(names.split()) for names, name in found}


def test_the_tests_of_an_engine_need_a_database_only_where_it_is_postgresql(marks: Mapping[str, set[str]]) -> None:
    of_engines = [name for name in marks if name.startswith(OF_ENGINES)]
    for needed, kinds in ((True, ("TestPostgres::", "[postgres")), (False, ("TestMemory::", "TestFile::", "[memory"))):
        for kind in kinds:
            assert {"database" in marks[name] for name in of_engines if kind in name} == {needed}


@pytest.mark.parametrize(("mark", "file"), MARKED_THROUGHOUT)
def test_a_file_that_needs_something_throughout_is_left_out_without_it(
    marks: Mapping[str, set[str]], mark: str, file: str
) -> None:
    assert {mark in names for name, names in marks.items() if name.startswith(file)} == {True}


def test_a_run_chooses_its_tests_by_their_marks() -> None:
    file = "tests/engines/test_locks.py"
    chosen, left = (
        [line for line in collect("-m", which, file) if "::" in line] for which in ("database", "not database")
    )
    assert {"[postgres" in name for name in chosen} == {True}
    assert {"[postgres" in name for name in left} == {False}


def test_most_unit_tests_need_nothing() -> None:
    files = ("tests/unit/test_rules_of_entries.py", "tests/unit/test_values.py")
    assert [line for line in collect("-m", "root or browser or database", *files) if "::" in line] == []


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
