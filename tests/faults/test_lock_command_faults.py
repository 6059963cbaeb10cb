"""The command of `leasehold lock` is gone before another holder has the lock; and planted bugs are detected."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness.lock_command import FAULTS, end_in_time
from harness.planted_lock import BUGS

COMMANDS = 2
"""At each fault: one ignores SIGTERM, and one does not."""
AT_ONCE = 3
"""Runs at the same time. A run takes the ttl of a lease, and nearly all of that is waiting."""
SHOWN_BY = {
    "the command is not ended": "cut",
    "only the first process is ended": "cut",
    "SIGKILL is never sent": "cut",
    "the guard is stopped with its parent": "stop",
    "the guard ends with its parent": "kill",
    "the deadline is too late": "cut",
}
"""A fault at which the bug matters."""


@pytest.mark.long
def test_the_command_is_gone_before_its_lease_is_over(tmp_path: Path) -> None:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        findings = dict(
            zip(
                FAULTS,
                threads.map(lambda fault: end_in_time(tmp_path, 61, faults=[fault], commands=COMMANDS), FAULTS),
                strict=True,
            )
        )
    for fault, finding in findings.items():
        assert finding.violations == []
        assert finding.figures["commands"] == COMMANDS
        assert finding.figures["commands that were ended"] == (0 if fault == "restart" else COMMANDS)


@pytest.mark.long
def test_planted_bugs_are_found(tmp_path: Path) -> None:
    def is_found(bug: str) -> bool:
        (folder := tmp_path / bug).mkdir()
        return end_in_time(folder, 62, faults=[SHOWN_BY[bug]], commands=COMMANDS, bug=bug).violations != []

    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert [bug for bug, found in zip(BUGS, threads.map(is_found, BUGS), strict=True) if not found] == []
