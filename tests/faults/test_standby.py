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
    def is_found(seed: int) -> bool:
        finding = survive_failovers(seed, [way], bug="trust the primary")
        return any(violation.startswith(("lost", "created")) for violation in finding.violations)

    # One failover shows it nearly always, and misses it where the batch that is believed has nothing to lose.
    assert any(map(is_found, range(1, 6)))
