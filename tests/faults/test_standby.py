"""The service on a primary with a synchronous standby: a failover loses no acknowledged change."""

import pytest
from harness.standby import LOSSES, WAYS, Way, survive_failovers

FAILOVERS = 5


@pytest.mark.parametrize("way", WAYS)
def test_no_acknowledged_change_is_missing_after_a_failover_during_a_commit(way: Way) -> None:
    finding = survive_failovers(1, [way] * FAILOVERS)
    assert finding.violations == []
    assert finding.figures["failovers"] == FAILOVERS
    assert finding.figures["writes under way at faults"] >= FAILOVERS


def test_no_acknowledged_change_is_missing_after_the_loss_of_the_primary() -> None:
    finding = survive_failovers(1, LOSSES)
    assert finding.violations == []
    assert finding.figures["failovers"] == len(LOSSES)
    assert finding.figures["writes under way at faults"] >= len(LOSSES)


def test_acknowledged_changes_that_an_asynchronous_standby_lacks_are_detected() -> None:
    finding = survive_failovers(1, ["primary lost"], is_synchronous=False)
    assert any(violation.startswith(("lost", "created")) for violation in finding.violations)


@pytest.mark.parametrize("way", ["query cancelled", "session ended"])
def test_a_commit_that_is_only_on_the_primary_and_believed_is_detected(way: Way) -> None:
    def is_found(seed: int) -> bool:
        finding = survive_failovers(seed, [way], bug="trust the primary")
        return any(violation.startswith(("lost", "created")) for violation in finding.violations)

    # One failover nearly always detects it. It does not if the batch in question has nothing to lose.
    assert any(map(is_found, range(1, 6)))


def test_lists_that_come_from_a_former_primary_are_detected() -> None:
    def is_found(seed: int) -> bool:
        finding = survive_failovers(seed, ["primary frozen"], bug="use former primaries")
        return any(violation.startswith("a list of") for violation in finding.violations)

    assert any(map(is_found, range(1, 6)))
