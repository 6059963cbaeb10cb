"""Acknowledged writes survive SIGKILL of the real server; and the harness detects differences."""

from pathlib import Path
from typing import Any

import pytest
from databases import STORES
from harness import depth
from harness.kills import CLIENTS, PADDING, History, Write, survive_kills

KILLS = depth(12)


@pytest.mark.parametrize("store", ["file", "postgres"])
def test_acknowledged_writes_survive_every_kill(store: str, tmp_path: Path) -> None:
    finding = survive_kills(STORES[store](tmp_path), 20, kills=KILLS)
    assert finding.violations == []
    assert finding.figures["kills with writes under way"] == KILLS
    assert finding.figures["writes under way at kills"] <= KILLS * CLIENTS


# The harness detects differences ------------------------------------------------------------------------------


def entry(revision: int, value: str) -> dict[str, Any]:
    return {"revision": revision, "value": value + PADDING}


@pytest.mark.parametrize(
    ("entries", "head", "fault"),
    [
        ({}, 3, "a is gone; new at 3 is lost"),
        ({"a": entry(2, "old")}, 3, "a went back from 3 to 2"),
        ({"a": entry(3, "old")}, 3, "a at 3 is old, not new"),
        ({"a": entry(4, "other")}, 4, "a is other, which no client wrote"),
        ({"a": entry(3, "new"), "b": entry(1, "gone")}, 3, "b went back from 2 to 1"),
        ({"a": entry(3, "new"), "c": entry(4, "new")}, 4, "c is new, which no client wrote"),
        ({"a": entry(3, "new")}, 2, "the head went back from 3 to 2"),
    ],
)
def test_a_difference_is_detected(entries: dict[str, Any], head: int, fault: str) -> None:
    history = History()
    for revision, write in enumerate([Write("b", "gone"), Write("b", None), Write("a", "new")], start=1):
        history.begin(write)
        history.end(write, revision)
    history.begin(Write("a", "doubtful"))
    history.note_kill()
    assert history.faults(entries, head) == [fault]


@pytest.mark.parametrize("entries", [{"a": entry(3, "new")}, {"a": entry(4, "doubtful")}])
def test_a_write_in_progress_may_be_stored_or_not(entries: dict[str, Any]) -> None:
    history = History()
    for revision, write in enumerate([Write("b", "gone"), Write("b", None), Write("a", "new")], start=1):
        history.begin(write)
        history.end(write, revision)
    history.begin(Write("a", "doubtful"))
    history.note_kill()
    assert history.faults(entries, 4) == []
