"""The history of one kind in memory: what it tells, what it forgets, and what a call costs."""

import random

import pytest
from executed_lines import lines_of

from leasehold.engines import base
from leasehold.engines.memory.history import MAX_CHANGES_FACTOR, MAX_SKIPPED, TRIM_CHANGES
from leasehold.engines.memory.state import State
from leasehold.engines.memory.table import Table
from leasehold.engines.state import Contents, empty_state
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, Change, Deletion, Entry


def put(key: str, revision: int) -> Entry:
    return Entry(key, b"1", revision, 0, 0)


def table_after(*changes: Change) -> Table[Entry]:
    table = Table(ENTRY, Contents({}, {}), 0)
    if changes:
        table.publish(changes, changes[-1].revision)
    return table


def told(table: Table[Entry], after: int, head: int, *, prefix: str = "", limit: int = 1_000_000) -> list[Change]:
    return table.history.changes(after, prefix, limit, head).changes


def test_a_reader_far_behind_costs_what_it_is_given_and_not_what_it_has_to_catch_up() -> None:
    table = table_after(*(put(f"{number:06}", number) for number in range(1, 50_001)))
    assert lines_of(lambda: told(table, 10, 50_000, limit=10)) < 200
    assert [change.revision for change in told(table, 10, 50_000, limit=3)] == [11, 12, 13]


def test_changes_that_are_all_current_are_found_without_a_loop_over_them() -> None:
    changes = [put(f"{number:06}", number) for number in range(1, 2_001)]
    table = table_after(*changes)
    assert lines_of(lambda: told(table, 0, 2_000, limit=500)) < 100
    assert told(table, 0, 2_000, limit=500) == changes[:500]
    assert lines_of(lambda: told(table, 0, 2_000)) > 2_000, "the last ones are found in the loop"


def told_in_windows(table: Table[Entry], head: int, *, prefix: str, limit: int) -> list[Change]:
    """All changes, as a reader gets them who asks for windows."""
    after, found = 0, []
    while after < head:
        window = table.history.changes(after, prefix, limit, head)
        assert window.revision > after
        assert all(after < change.revision <= window.revision for change in window.changes)
        after = window.revision
        found += window.changes
    return found


@pytest.mark.parametrize("seed", range(20))
def test_windows_of_any_size_have_the_changes_that_one_window_has(seed: int) -> None:
    rng = random.Random(seed)
    table, revision = table_after(), 0
    for _ in range(rng.choice([20, 60])):
        revision += 1
        keys = rng.sample([f"{letter}{number}" for letter in "ab" for number in range(100)], k=rng.choice([1, 1, 1, 3]))
        changes = [Deletion(key, revision) if rng.random() < 0.1 else put(key, revision) for key in keys]
        table.publish(changes, revision)
    for prefix in ("", "a"):
        whole = told(table, 0, revision, prefix=prefix)
        for limit in (1, 2, 5, 30):
            assert told_in_windows(table, revision, prefix=prefix, limit=limit) == whole


def test_pages_of_a_key_that_is_written_over_and_over_end_early_and_arrive() -> None:
    count = 3 * MAX_SKIPPED
    table = table_after(*(put("same", number) for number in range(1, count + 1)))
    after, pages, found = 0, 0, []
    while after < count:
        page = table.history.changes(after, "", 10, count)
        after, pages = page.revision, pages + 1
        found += page.changes
    assert (found, pages) == ([put("same", count)], 3)


def test_what_is_more_than_the_bound_behind_the_head_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "HISTORY_CHANGES", 2_000)
    table = table_after()
    for number in range(1, 10_001):
        table.publish([Deletion(f"{number}", number) if number % 2 else put(f"{number}", number)], number)
    assert len(table.history.revisions) <= 2_000 + 2 * TRIM_CHANGES
    assert len(table.history.removals) <= 1_000 + TRIM_CHANGES
    assert len(told(table, 8_000, 10_000)) == 2_000
    with pytest.raises(ServiceError) as caught:
        told(table, 7_999, 10_000)
    assert caught.value.code == "revision_compacted"


def test_removals_that_were_loaded_are_told_with_the_records_in_order() -> None:
    contents = Contents({"a": put("a", 4), "b": put("b", 9)}, {"c": 6, "old": 2})
    table = Table(ENTRY, contents, 3)
    assert told(table, 3, 9) == [put("a", 4), Deletion("c", 6), put("b", 9)]
    with pytest.raises(ServiceError):
        told(table, 2, 9)


def test_a_snapshot_has_the_removals_that_may_still_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "HISTORY_CHANGES", 5)
    table = table_after(Deletion("old", 1), Deletion("young", 8), put("a", 9))
    assert table.snapshot(9).removals == {"young": 8}
    assert table.snapshot_after([put("young", 10)], 10).removals == {}


def test_the_text_counts_removals() -> None:
    table = table_after(put("a", 1))
    before = table.text_bytes
    table.publish([Deletion("b", 2)], 2)
    assert table.text_bytes > before


def deletions(revision: int, count: int) -> list[Change]:
    """The changes of a transaction that deletes this many entries."""
    return [Deletion(f"{revision}/{number}", revision) for number in range(count)]


def test_revisions_with_many_changes_are_compacted_by_the_number_of_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "HISTORY_CHANGES", 2_000)
    table = table_after()
    for revision in range(1, 201):
        table.publish(deletions(revision, 128), revision)
    history = table.history
    kept = MAX_CHANGES_FACTOR * 2_000
    assert kept - 128 <= len(history.revisions) <= kept + TRIM_CHANGES + 128
    assert len(history.names) == len(history.revisions) == len(history.removals)
    assert history.revisions[0] == history.floor + 1, "a revision is kept as a whole or not at all"
    with pytest.raises(ServiceError) as caught:
        told(table, history.floor - 1, 200)
    assert caught.value.code == "revision_compacted"
    assert len(told(table, history.floor, 200)) == len(history.revisions)


def test_compaction_by_the_number_of_changes_survives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "HISTORY_CHANGES", 2_000)
    state = State(empty_state())
    for revision in range(1, 101):
        changes = deletions(revision, 128)
        state.publish({ENTRY: changes}, revision)
    floor = state.table(ENTRY).history.floor
    assert 0 < floor == state.compacted_revision == state.snapshot().compacted_revision
    after = state.snapshot_after(deletions(101, 3), 101)
    assert after.compacted_revision == floor
    rebuilt = state.rebuilt({ENTRY: deletions(101, 3)}, 101)
    assert rebuilt.compacted_revision == floor
    assert len(rebuilt.table(ENTRY).history.revisions) == len(state.table(ENTRY).history.revisions) + 3


# Batches ------------------------------------------------------------------------------------------------------


def any_change(rng: random.Random, key: str, revision: int, *, replaces: bool) -> Change:
    if not replaces and rng.random() < 0.2:
        return Deletion(key, revision)
    expires_at = revision if not replaces and rng.random() < 0.2 else None
    return Entry(key, b"x" * rng.randrange(20), revision, 0, 0, expires_at)


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_has_the_same_effect_as_its_changes_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    at_once, one_by_one = table_after(), table_after()
    revision = 0
    for _ in range(30):
        replaces = rng.random() < 0.7
        keys = [*at_once.by_name] if replaces and at_once.by_name else "abcdefghij"
        names = rng.sample(keys, k=rng.randrange(len(keys)) + 1)
        changes = [any_change(rng, key, revision + place, replaces=replaces) for place, key in enumerate(names, 1)]
        revision += len(changes)
        at_once.publish(changes, revision)
        for change in changes:
            one_by_one.publish([change], change.revision)
        assert at_once.text_bytes == one_by_one.text_bytes == Table(ENTRY, at_once.contents(), 0).text_bytes
        for table in (at_once, one_by_one):
            assert table.expired(100, revision) == at_once.expired(100, revision)
            assert table.page("", None, 100, revision, 0) == at_once.page("", None, 100, revision, 0)
            assert told(table, 0, revision) == told(at_once, 0, revision)
            assert told(table, revision - len(changes), revision) == changes
