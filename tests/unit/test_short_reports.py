"""A worker of pytest-xdist reports each test that has passed once, and every failure of the others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
FILE = """
import pytest

@pytest.fixture
def broken():
    raise ValueError

@pytest.fixture
def breaks_at_the_end():
    yield
    raise ValueError

def test_that_passes(): ...
def test_that_fails(): assert False
def test_whose_setup_fails(broken): ...
def test_whose_teardown_fails(breaks_at_the_end): ...
def test_that_fails_with_its_teardown(breaks_at_the_end): assert False
"""
COUNTED = """
def pytest_runtest_logreport(report):
    if report.passed:
        print("passed:", report.when)
"""


@pytest.mark.parametrize(
    ("worker", "passed"), [("gw0", {"call": 2}), ("", {"setup": 4, "call": 2, "teardown": 3})], ids=["worker", "alone"]
)
def test_only_reports_of_steps_that_passed_are_left_out(tmp_path: Path, worker: str, passed: dict[str, int]) -> None:
    (tmp_path / "test_file.py").write_text(FILE)
    (tmp_path / "counted.py").write_text(COUNTED)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    variables = {"PYTEST_XDIST_WORKER": worker, "PYTEST_XDIST_WORKER_COUNT": "1"} if worker else {}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *("-p", "conftest", "-p", "counted", "-p", "no:cacheprovider", "-s"),
            tmp_path,
        ],
        env=inherited | variables | {"PYTHONPATH": f"{TESTS}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 failed, 2 passed, 3 errors" in ended.stdout, ended.stdout
    assert {when: ended.stdout.count(f"passed: {when}") for when in passed} == passed
    assert ended.stdout.count("passed: ") == sum(passed.values())
