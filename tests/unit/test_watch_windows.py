"""Windows of changes: merged, cut and divided at the ends of revisions; and prefixes by name."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.model import Change, Changes, Deletion, Entry, LeaseEnd
from leasehold.store.watch_windows import (
    CHANGE_BYTES,
    LIGHT_WINDOW_BYTES,
    PIECE_BYTES,
    WINDOW_CHANGES,
    PrefixIndex,
    common_prefix,
    merged,
    next_size,
    pieces,
    record_pieces,
    until,
)


def entry(revision: int, size: int = 1, key: str = "a") -> Entry:
    return Entry(key, b"1" * size, revision, 1, 1)


def revisions(changes: Sequence[Change]) -> list[int]:
    return [change.revision for change in changes]


# Windows ------------------------------------------------------------------------------------------------------


def test_a_merged_window_ends_where_both_are_complete() -> None:
    entries = Changes([entry(1), entry(4), entry(9)], 9)
    leases = Changes([LeaseEnd("l", 2), LeaseEnd("m", 6)], 7)
    window = merged(entries, leases)
    assert (revisions(window.changes), window.revision) == ([1, 2, 4, 6], 7)


def test_changes_of_both_kinds_with_one_revision_stay_together() -> None:
    window = merged(Changes([entry(3), entry(3, key="b")], 3), Changes([LeaseEnd("l", 3)], 5))
    assert (revisions(window.changes), window.revision) == ([3, 3, 3], 3)


def test_a_window_without_leases_is_cut_like_any_other() -> None:
    assert merged(Changes([entry(1), entry(5)], 6), Changes([], 4)) == Changes([entry(1)], 4)


def test_a_window_is_cut_after_a_revision() -> None:
    window = Changes([entry(1), Deletion("b", 3), entry(5)], 7)
    assert (revisions(until(window, 3).changes), until(window, 3).revision) == ([1, 3], 3)
    assert until(window, 7) is until(window, 8) is window


def test_windows_grow_while_they_are_light() -> None:
    assert next_size(16, [entry(1)]) == 32
    assert next_size(WINDOW_CHANGES, []) == WINDOW_CHANGES
    assert next_size(16, [entry(1, LIGHT_WINDOW_BYTES + 1)]) == 8
    assert next_size(1, [entry(1, LIGHT_WINDOW_BYTES + 1)]) == 1


# Pieces -------------------------------------------------------------------------------------------------------


def test_pieces_have_about_64_kib() -> None:
    changes = [entry(number, 1_000) for number in range(1, 301)]
    parts = list(pieces(changes))
    assert [each for part in parts for each in part] == changes
    sizes = [sum(CHANGE_BYTES + 1_000 for _ in part) for part in parts]
    assert all(PIECE_BYTES <= size < PIECE_BYTES + 2_000 for size in sizes[:-1])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, PIECE_BYTES))))
def test_a_revision_is_never_divided(steps: list[tuple[int, int]]) -> None:
    revision, changes = 1, []
    for step, size in steps:
        revision += step
        changes.append(entry(revision, size))
    parts = list(pieces(changes))
    assert [each for part in parts for each in part] == changes
    ends = [part[-1].revision for part in parts]
    assert ends == sorted(set(ends))
    assert all(part[0].revision > end for end, part in zip(ends, parts[1:], strict=False))


def test_records_are_divided_anywhere() -> None:
    records = [entry(1, PIECE_BYTES) for _ in range(3)]
    assert [len(part) for part in record_pieces(records)] == [1, 1, 1]
    assert list(record_pieces([])) == []


# Prefixes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefixes", "common"),
    [
        ((), ""),
        (("",), ""),
        (("ab",), "ab"),
        (("ab", "ac"), "a"),
        (("a", "ab"), "a"),
        (("a", "b"), ""),
        (("ä", "äb"), "ä"),
    ],
)
def test_the_common_prefix_of_several(prefixes: tuple[str, ...], common: str) -> None:
    assert common_prefix(prefixes) == common


PREFIXES = st.text("abä", max_size=3)


@given(st.lists(st.tuples(PREFIXES, st.booleans())), st.text("abä", max_size=4))
def test_the_index_finds_the_values_of_all_prefixes_of_a_name(steps: list[tuple[str, bool]], name: str) -> None:
    index: PrefixIndex[int] = PrefixIndex()
    known: list[tuple[str, int]] = []
    for number, (prefix, is_removed) in enumerate(steps):
        index.add(prefix, number)
        if is_removed:
            index.remove(prefix, number)
        else:
            known.append((prefix, number))
    assert sorted(index.of(name)) == [number for prefix, number in known if name.startswith(prefix)]
