"""Transactions are all or nothing and seen at one moment, through kills and pauses; and planted bugs are detected."""

from pathlib import Path

import pytest
from databases import STORES
from harness import depth
from harness.transfers import keep_the_sum

from leasehold.engines.memory.history import History
from leasehold.model import Changes, Entry

OF_ONE_SERVER = depth(60_000)
OF_TWO_SERVERS = depth(40_000)
"""Operations in a round."""
FAULTS = 5
"""Faults of each kind."""


@pytest.mark.long
def test_transfers_on_the_file_engine_keep_the_sum_through_kills_and_pauses(tmp_path: Path) -> None:
    finding = keep_the_sum(STORES["file"](tmp_path), 31, operations=OF_ONE_SERVER, kills=FAULTS, pauses=FAULTS)
    assert finding.violations == []
    assert finding.figures["operations"] >= OF_ONE_SERVER
    assert finding.figures["transfers done"] > OF_ONE_SERVER // 20
    assert finding.figures["refused"] > OF_ONE_SERVER // 20
    assert finding.figures["kills with operations under way"] == FAULTS


@pytest.mark.long
def test_transfers_on_two_servers_keep_the_sum_through_kills_pauses_and_lost_answers(tmp_path: Path) -> None:
    finding = keep_the_sum(
        STORES["postgres"](tmp_path),
        32,
        operations=OF_TWO_SERVERS,
        kills=FAULTS,
        pauses=FAULTS,
        servers=2,
        lost_answers=5,
    )
    assert finding.violations == []
    assert finding.figures["operations"] >= OF_TWO_SERVERS
    assert finding.figures["transfers done"] > OF_TWO_SERVERS // 20
    assert finding.figures["kills with operations under way"] == FAULTS
    assert finding.figures["answers of COMMIT lost"] == 5


# Planted bugs -------------------------------------------------------------------------------------------------


SEEDS = (33, 34, 35, 36, 37, 38)
"""A bug shows itself only if requests meet in a certain way, so one of these runs must find it."""


def violations(tmp_path: Path, bug: str | None, seed: int = SEEDS[0]) -> list[str]:
    (folder := tmp_path / str(seed)).mkdir()
    return keep_the_sum(STORES["file"](folder), seed, operations=1_500, kills=2, pauses=0, bug=bug).violations


@pytest.mark.parametrize(
    "bug",
    [
        "show half a transaction",
        "number operations",
        "check transactions on arrival",
        "publish before durable",
        "answer before durable",
    ],
)
def test_a_planted_bug_is_found(bug: str, tmp_path: Path) -> None:
    runs = (violations(tmp_path, bug, seed) for seed in SEEDS)
    assert any(violation.startswith("answers: ") for found in runs for violation in found)


@pytest.mark.parametrize("bug", [None, "slow disk"])
def test_without_a_bug_the_same_run_finds_nothing(bug: str | None, tmp_path: Path) -> None:
    assert violations(tmp_path, bug) == []


def test_a_page_of_changes_that_ends_within_a_transaction_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = History.changes

    def cut(self: History[Entry], after_revision: int, prefix: str, limit: int, head: int) -> Changes:
        page = whole(self, after_revision, prefix, limit, head)
        if len(page.changes) <= limit:
            return page
        return Changes(page.changes[:limit], page.changes[limit - 1].revision)

    monkeypatch.setattr(History, "changes", cut)
    runs = (violations(tmp_path, None, seed) for seed in SEEDS)
    assert [each.partition(":")[0] for each in next(filter(None, runs))] == ["pages"]
