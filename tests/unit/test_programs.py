"""A test whose program is missing is skipped and listed at the end of the run. With `CI=true` it fails, as does
every test that is skipped."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from programs import OTHERS, PACKAGES, needs

TESTS = Path(__file__).parent.parent
FILE = """
import programs
import pytest

programs.PACKAGES = {"no-such-program": "no-such-package", "sh": "dash"}

@programs.needs("no-such-program", "sh")
def test_of_a_mark():
    pass

def test_of_a_call():
    programs.program("no-such-program")

@pytest.mark.skipif(True, reason="the system cannot do that")
def test_of_the_system():
    pass

@programs.needs("sh")
def test_that_runs():
    assert programs.program("sh").exists()
"""


SKIPPED_FILE = """
import pytest

pytest.skip("the system cannot do any of that", allow_module_level=True)
"""


OF_A_WORKER = {"PYTEST_XDIST_WORKER": "gw0", "PYTEST_XDIST_WORKER_COUNT": "1"}
"""The worker imports all files before pytest collects them. Those that are skipped must be reported all the same."""


def run(folder: Path, *, ci: str, arguments: Sequence[str] = ()) -> tuple[int, str]:
    (folder / "test_needs.py").write_text(FILE)
    (folder / "test_system.py").write_text(SKIPPED_FILE)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers --import-mode=importlib\n")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", str(folder), *arguments],
        env=os.environ | OF_A_WORKER | {"PYTHONPATH": str(TESTS), "CI": ci},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_a_test_without_its_program_is_skipped_and_listed_at_the_end(tmp_path: Path) -> None:
    code, output = run(tmp_path, ci="")
    assert code == 0, output
    assert "1 passed, 4 skipped" in output
    assert "2 for want of no-such-program (apt-get install no-such-package)" in output


def test_in_ci_no_test_is_skipped(tmp_path: Path) -> None:
    code, output = run(tmp_path, ci="true", arguments=["--continue-on-collection-errors"])
    assert code == 1, output
    assert "1 failed, 1 passed, 3 errors" in output
    assert output.count("this machine lacks no-such-program (apt-get install no-such-package)") >= 2
    assert "the system cannot do that" in output
    assert "the system cannot do any of that" in output


def test_ci_installs_every_program_that_tests_need() -> None:
    script = (TESTS.parent / ".ci" / "run").read_text()
    installed = re.search(r"^packages=\((.*?)\)$", script, re.DOTALL | re.MULTILINE)
    assert installed is not None
    assert sorted(installed[1].split()) == sorted(set(PACKAGES.values()))
    required = re.search(r"^others=\((.*?)\)$", script, re.MULTILINE)
    assert required is not None
    assert sorted(required[1].split()) == sorted(OTHERS)


def test_a_program_without_a_known_package_is_an_error_in_the_test() -> None:
    with pytest.raises(ValueError, match="ngnix"):
        needs("ngnix")
