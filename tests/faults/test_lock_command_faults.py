"""The command of `leasehold lock` is gone before another holder has the lock; and planted bugs are detected."""

from pathlib import Path

import pytest
from harness.lock_command import FAULTS, HOLDERS, end_in_time
from harness.planted_lock import BUGS

SHOWN_BY = {
    "the command is not ended": "cut",
    "only the first process is ended": "cut",
    "SIGKILL is never sent": "cut",
    "the guard is stopped with its parent": "stop",
    "the guard ends with its parent": "kill",
    "the deadline is too late": "cut",
}
"""A fault at which the bug matters."""


@pytest.mark.parametrize("fault", FAULTS)
def test_the_command_is_gone_before_its_lease_is_over(tmp_path: Path, fault: str) -> None:
    finding = end_in_time(tmp_path, 61, faults=[fault])
    assert finding.violations == []
    assert finding.figures["commands"] == HOLDERS
    assert finding.figures["commands that were ended"] == (0 if fault == "restart" else HOLDERS)


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(tmp_path: Path, bug: str) -> None:
    assert end_in_time(tmp_path, 62, faults=[SHOWN_BY[bug]], bug=bug).violations != []
