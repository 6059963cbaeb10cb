"""Watchers end in the store's state through kills, restarts and slow reading; and the harness detects violations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from databases import STORES
from harness import depth
from harness.watch_states import WatcherState
from harness.watchers import watch_through_kills

MOST_WRITES = depth(500)
"""Between two kills."""
WATCHERS = depth(100)


@pytest.mark.parametrize(("store", "servers", "kills"), [("file", 1, 13), ("postgres", 2, 7)])
@pytest.mark.long
def test_every_watcher_ends_in_the_state_of_the_store(store: str, servers: int, kills: int, tmp_path: Path) -> None:
    """20 kills in all."""
    finding = watch_through_kills(
        STORES[store](tmp_path), 12, kills=kills, watchers=WATCHERS, servers=servers, most_writes=MOST_WRITES
    )
    figures = finding.figures
    assert finding.violations == []
    assert (figures["kills"], figures["resets"]) == (kills, 0)
    assert figures["comparisons"] >= 2 * WATCHERS
    assert figures["kills with writes under way"] >= kills * 0.8
    assert figures["reconnections"] > figures["connections closed by watchers"] > 0
    assert figures["responses ended by the service"] > 0


# The harness detects violations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bug", "fault"),
    [
        ("forget removals at checkpoints", "in the store absent"),
        ("ids inside transactions", "of the same transaction"),
        ("skip what slow readers miss", "in the store"),
        ("tell the lease_id", "lease_id"),
    ],
)
def test_a_planted_bug_is_detected(bug: str, fault: str, tmp_path: Path) -> None:
    violations: list[str] = []
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        planted = {"LEASEHOLD_TEST_BUG": bug}
        finding = watch_through_kills(
            folder / "data.json", seed, kills=6, watchers=30, writers=8, most_writes=MOST_WRITES, planted=planted
        )
        violations += finding.violations
        if any(fault in each for each in violations):
            break
    assert any(fault in each for each in violations), violations[:5]


READY = {"event": "ready", "id": 5, "data": {"revision": 5}}


def put(revision: int, *, key: str = "a", cursor: bool = True) -> dict[str, Any]:
    event = {"event": "put", "data": {"key": key, "revision": revision, "value": revision}}
    return event | ({"id": revision} if cursor else {})


def lock(revision: int, **members: Any) -> dict[str, Any]:
    data = {"lock": "a", "state": "held", "token": 1, "revision": revision}
    return {"event": "lock", "id": revision, "data": data | members}


def progress(revision: int) -> dict[str, Any]:
    return {"event": "progress", "id": revision, "data": {"revision": revision}}


def faults(*events: dict[str, Any], cursor: int | None = None, **options: Any) -> list[str]:
    asked: dict[str, Any] = {"prefixes": ("",), "with_locks": True, "with_snapshot": True}
    state = WatcherState("w", **asked | options)
    state.cursor = cursor
    state.connect()
    for event in events:
        state.take(event)
    return state.faults


@pytest.mark.parametrize(
    "events",
    [
        [READY, put(6), put(8), progress(9), lock(10)],
        [put(3, cursor=False), put(9, key="b", cursor=False), READY, put(9, key="b")],
        [READY, put(6, key="pair/1/a", cursor=False), put(6, key="pair/1/b")],
        [READY, {"event": "end", "data": {"error": "unavailable"}}],
    ],
)
def test_events_that_keep_the_promises_are_accepted(events: Sequence[dict[str, Any]]) -> None:
    assert faults(*events) == []


@pytest.mark.parametrize(
    ("events", "options", "fault"),
    [
        ([READY, put(6), put(6)], {}, "6 after 6, with the cursor at 6"),
        ([READY, put(8), put(7)], {}, "7 after 8, with the cursor at 8"),
        ([READY, put(5)], {}, "5 after 5, with the cursor at 5"),
        ([READY, progress(4)], {}, "progress at 4 after 5"),
        ([READY, put(6, cursor=False), put(7)], {}, "revision 6 ends without an id"),
        ([READY, put(6, cursor=False), progress(6)], {}, "progress at 6 after 6"),
        ([READY, put(6, key="pair/1/b")], {}, "the id 6 came before pair/1/a of the same transaction"),
        ([put(3), READY], {}, "3 with the id 3 before ready"),
        ([READY], {"cursor": 4}, "resumed at 5 instead of 4"),
        ([READY, put(6)], {"prefixes": ("b",)}, "a was not asked for"),
        ([READY, lock(6)], {"with_locks": False}, "the lock a was not asked for"),
        ([READY, lock(6, lease_id="x")], {}, "the lease_id of a was told"),
        ([READY, {"event": "reset", "data": {"revision": 9}}], {}, "a reset that was not due"),
    ],
)
def test_events_that_break_a_promise_are_detected(
    events: Sequence[dict[str, Any]], options: dict[str, Any], fault: str
) -> None:
    assert faults(*events, **options) == [f"w: {fault}"]


@pytest.mark.parametrize(
    ("entries", "tokens", "difference"),
    [
        ({"a": (6, 6)}, {}, None),
        ({"a": (7, 7)}, {}, "w: the entry a is (6, 6), in the store (7, 7)"),
        ({}, {}, "w: the entry a is (6, 6), in the store absent"),
        ({"a": (6, 6), "b": (5, 5)}, {}, "w: the entry b is absent, in the store (5, 5)"),
        ({"a": (6, 6)}, {"l": 3}, "w: the lock l is absent, in the store 3"),
    ],
)
def test_a_difference_from_the_store_is_detected(
    entries: dict[str, tuple[int, Any]], tokens: dict[str, int], difference: str | None
) -> None:
    state = WatcherState("w", ("",), with_locks=True, with_snapshot=True)
    state.connect()
    for event in (READY, put(6)):
        state.take(event)
    assert state.differences(entries, tokens) == ([] if difference is None else [difference])
