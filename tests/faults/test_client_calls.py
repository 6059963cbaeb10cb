"""Both Python clients do each call once, although connections are cut at any byte; and planted bugs are detected."""

from pathlib import Path

import pytest
from harness import depth
from harness.client_calls import BUGS, agree_in_spite_of_cuts

CALLS = depth(400)


def test_both_clients_agree_with_a_run_without_cuts(tmp_path: Path) -> None:
    finding = agree_in_spite_of_cuts(tmp_path, 51, calls=CALLS)
    assert finding.violations == []
    assert finding.figures["calls"] >= 2 * CALLS
    assert finding.figures["cuts"] >= CALLS // 5


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(tmp_path: Path, bug: str) -> None:
    assert agree_in_spite_of_cuts(tmp_path, 52, calls=100, bug=bug).violations != []
