"""When the file engine writes `data.json`."""

import pytest

from leasehold.engines.file import policy
from leasehold.limits import KIB, MIB

SMALL, LARGE = 256 * KIB, 256 * KIB + 1


@pytest.mark.parametrize(
    ("gap_seconds", "expected"), [(float("inf"), True), (0.1, True), (0.006, True), (0.004, False), (0.0, False)]
)
def test_a_commit_is_isolated_if_the_previous_one_ended_some_milliseconds_before(
    gap_seconds: float, *, expected: bool
) -> None:
    assert policy.is_isolated(1_000.0, 1_000.0 - gap_seconds, 1) is expected


@pytest.mark.parametrize(("operations", "expected"), [(1, True), (8, True), (9, False), (256, False)])
def test_a_commit_of_many_operations_is_not_isolated(operations: int, *, expected: bool) -> None:
    assert policy.is_isolated(1_000.0, 0.0, operations) is expected


@pytest.mark.parametrize(("text_bytes", "expected"), [(0, True), (SMALL, True), (LARGE, False)])
def test_a_store_of_up_to_256_kib_is_small(text_bytes: int, *, expected: bool) -> None:
    assert policy.is_small(text_bytes) is expected


@pytest.mark.parametrize(
    ("journal_bytes", "text_bytes", "expected"),
    [(16 * MIB, 0, False), (16 * MIB + 1, 0, True), (17 * MIB, 17 * MIB, False), (17 * MIB + 1, 17 * MIB, True)],
)
def test_a_checkpoint_during_commits_begins_when_the_journal_is_larger_than_the_data(
    journal_bytes: int, text_bytes: int, *, expected: bool
) -> None:
    assert policy.is_journal_too_large(journal_bytes, text_bytes) is expected


@pytest.mark.parametrize(("seconds", "expected"), [(0.79, False), (0.8, True), (60.0, True)])
def test_data_json_of_a_small_store_is_written_once_it_lacks_most_of_a_second(
    seconds: float, *, expected: bool
) -> None:
    assert policy.is_stale(seconds, SMALL) is expected
    assert not policy.is_stale(seconds, LARGE)


@pytest.mark.parametrize(("text_bytes", "expected"), [(256 * MIB, False), (256 * MIB + 1, True)])
def test_a_store_over_256_mib_leaves_its_last_changes_in_the_journal(text_bytes: int, *, expected: bool) -> None:
    assert policy.leaves_journal(text_bytes) is expected


def test_two_looks_fit_into_the_second_for_which_data_json_may_lack_changes() -> None:
    assert policy.STALE_SECONDS + policy.IDLE_SECONDS < 1.0


@pytest.mark.parametrize(
    ("text_bytes", "journal_bytes", "has_old_journal", "expected"),
    [
        (SMALL, 1, False, True),
        (LARGE, LARGE // 2, False, False),
        (LARGE, LARGE // 2 + 1, False, True),
        (LARGE, 0, True, True),
    ],
)
def test_an_idle_store_is_brought_up_to_date_if_it_is_small_or_its_journal_is_large(
    text_bytes: int, journal_bytes: int, *, has_old_journal: bool, expected: bool
) -> None:
    assert policy.is_due_when_idle(text_bytes, journal_bytes, has_old_journal=has_old_journal) is expected
