"""No answer contradicts another, through kills and pauses of the servers; and both checks detect planted bugs."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from databases import STORES
from harness import Finding, depth
from harness.linearizability import stay_linearizable
from harness.turns import FAULTS as FAULTS_OF_TURNS
from harness.turns import PLACES, FaultInTurn, Place

OF_ONE_SERVER = depth(30_000)
OF_TWO_SERVERS = depth(25_000)
"""Operations in a round."""
FAULTS = 5
"""Faults of each kind."""


def test_the_file_engine_is_linearizable_through_kills_and_pauses(tmp_path: Path) -> None:
    finding = stay_linearizable(STORES["file"](tmp_path), 21, operations=OF_ONE_SERVER, kills=FAULTS, pauses=FAULTS)
    assert finding.violations == []
    assert finding.figures["operations"] >= OF_ONE_SERVER
    assert finding.figures["kills with operations under way"] == FAULTS
    assert finding.figures["pauses with operations under way"] == FAULTS


def test_two_servers_on_one_database_are_linearizable_through_kills_and_pauses(tmp_path: Path) -> None:
    """Their lanes wait for the next requests of the few clients that they have."""
    finding = stay_linearizable(
        STORES["postgres"](tmp_path),
        22,
        operations=OF_TWO_SERVERS,
        kills=FAULTS,
        pauses=FAULTS,
        servers=2,
        lost_answers=5,
        bug="wait for few",
    )
    assert finding.violations == []
    assert finding.figures["operations"] >= OF_TWO_SERVERS
    assert finding.figures["kills with operations under way"] == FAULTS
    assert finding.figures["pauses with operations under way"] == FAULTS
    assert finding.figures["answers of COMMIT lost"] == 5


@pytest.mark.long
def test_two_servers_are_linearizable_when_they_fail_in_their_turns(tmp_path: Path) -> None:
    in_turns: list[FaultInTurn] = [
        *product(["kill", "cut"], PLACES),  # type: ignore[list-item] # of literals
        ("pause", "load"),
        ("silence", "COMMIT"),
    ]
    finding = stay_linearizable(
        STORES["postgres"](tmp_path), 26, operations=OF_TWO_SERVERS, kills=0, pauses=0, servers=2, in_turns=in_turns
    )
    figures = finding.figures
    assert finding.violations == []
    assert figures["operations"] >= OF_TWO_SERVERS
    struck = {fault: figures[f"{fault}s in a turn"] for fault in FAULTS_OF_TURNS}
    assert struck == {"kill": 4, "pause": 1, "cut": 4, "silence": 1}


# Planted bugs -------------------------------------------------------------------------------------------------


SEEDS = range(23, 31)
"""A bug shows itself only if requests and kills meet in a certain way, so one of these rounds must find it."""


def is_found(find: Callable[[Path, int], Finding], tmp_path: Path) -> bool:
    """Whether both checks find a violation in one of the rounds."""
    for seed in SEEDS:
        (folder := tmp_path / str(seed)).mkdir()
        if kinds(find(folder, seed).violations) == {"revisions", "search"}:
            return True
    return False


def kinds(violations: list[str]) -> set[str]:
    """Which checks found violations."""
    return {violation.partition(":")[0] for violation in violations}


@pytest.mark.parametrize("bug", ["publish before durable", "answer before durable", "check preconditions on arrival"])
def test_a_planted_bug_is_found_by_both_checks(bug: str, tmp_path: Path) -> None:
    def find(folder: Path, seed: int) -> Finding:
        return stay_linearizable(STORES["file"](folder), seed, operations=1_500, kills=4, pauses=0, bug=bug)

    assert is_found(find, tmp_path)


def test_a_slow_disk_alone_is_not_a_violation(tmp_path: Path) -> None:
    finding = stay_linearizable(STORES["file"](tmp_path), 23, operations=1_500, kills=4, pauses=0, bug="slow disk")
    assert finding.violations == []


def test_a_retry_after_an_unknown_commit_is_found_by_both_checks(tmp_path: Path) -> None:
    def find(folder: Path, seed: int) -> Finding:
        store, bug = STORES["postgres"](folder), "retry unknown commits"
        found = stay_linearizable(store, seed, operations=3_000, kills=0, pauses=0, servers=2, lost_answers=5, bug=bug)
        assert found.figures["answers of COMMIT lost"] == 5
        return found

    assert is_found(find, tmp_path)


@pytest.mark.parametrize(
    ("bug", "place"), [("retry unknown commits", "answer"), ("decide once", "COMMIT")], ids=lambda value: value
)
def test_a_batch_that_is_repeated_after_its_turn_was_lost_is_found_by_both_checks(
    bug: str, place: Place, tmp_path: Path
) -> None:
    """Either it was committed in the lost turn, or what it was decided on has changed since."""
    in_turns: list[FaultInTurn] = [("cut", place)] * 3

    def find(folder: Path, seed: int) -> Finding:
        store = STORES["postgres"](folder)
        return stay_linearizable(
            store, seed, operations=3_000, kills=0, pauses=0, servers=2, in_turns=in_turns, bug=bug
        )

    assert is_found(find, tmp_path)


def test_two_servers_that_commit_at_once_are_found_by_both_checks(tmp_path: Path) -> None:
    def find(folder: Path, seed: int) -> Finding:
        store, bug = STORES["postgres"](folder), "turn without lock"
        return stay_linearizable(store, seed, operations=1_000, kills=0, pauses=0, servers=2, bug=bug)

    assert is_found(find, tmp_path)
