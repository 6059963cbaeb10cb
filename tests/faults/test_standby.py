"""The service on a primary with a synchronous standby: a failover loses nothing that was acknowledged."""

import pytest
from harness.standby import WAYS, Way, survive_failovers

FAILOVERS = 5


@pytest.mark.parametrize("way", WAYS)
def test_nothing_acknowledged_is_missing_after_a_failover_while_a_commit_waited(way: Way) -> None:
    finding = survive_failovers(1, [way] * FAILOVERS)
    assert finding.violations == []
    assert finding.figures["failovers"] == FAILOVERS
    assert finding.figures["writes under way at faults"] >= FAILOVERS


@pytest.mark.parametrize("way", ["query cancelled", "session ended"])
def test_a_commit_believed_because_it_is_there_would_be_found(way: Way) -> None:
    finding = survive_failovers(1, [way], bug="trust the primary")
    assert [violation for violation in finding.violations if violation.startswith(("lost", "created"))]
