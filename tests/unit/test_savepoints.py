"""Savepoints of a batch: changes inside one are dropped, with their revisions, if an exception leaves the block."""

from contextlib import suppress

import pytest
from driving import stored_state

from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, LEASE, Acquire, Delete, Entry, Operation, Put, Release
from leasehold.rules.batch import apply
from leasehold.rules.overlay import Overlay

HEAD = 10
KEPT = Entry("kept", b"1", 5, 1, 1)


class RefusedError(Exception):
    """Leaves a savepoint."""


@pytest.fixture
def overlay() -> Overlay:
    return Overlay(State(stored_state({"kept": KEPT}, HEAD)), HEAD, now=100, max_value_bytes=1_000)


def apply_and_leave(overlay: Overlay, *operations: Operation) -> None:
    """Apply operations inside a savepoint that an exception leaves."""
    with suppress(RefusedError), overlay.savepoint():
        for operation in operations:
            apply(overlay, operation)
        raise RefusedError


def test_a_savepoint_that_ends_well_keeps_its_changes(overlay: Overlay) -> None:
    with overlay.savepoint():
        apply(overlay, Put("a", b"1"))
        apply(overlay, Put("b", b"2"))
    assert [(change.name, change.revision) for change in overlay.changes()] == [("a", 11), ("b", 12)]


def test_a_savepoint_that_is_left_drops_its_changes_and_revisions(overlay: Overlay) -> None:
    apply(overlay, Put("before", b"1"))
    apply_and_leave(overlay, Put("a", b"1"), Delete("kept"), Acquire("l", "id", 50))
    apply(overlay, Put("after", b"1"))
    assert [(change.name, change.revision) for change in overlay.changes()] == [("before", 11), ("after", 12)]
    assert overlay.stored(ENTRY, "kept") == KEPT
    assert overlay.live(LEASE, "l") is None


def test_what_the_batch_had_changed_before_the_savepoint_comes_back(overlay: Overlay) -> None:
    apply(overlay, Put("a", b"1"))
    apply_and_leave(overlay, Put("a", b"2"), Put("a", b"3"), Delete("a"))
    entry = overlay.stored(ENTRY, "a")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"1", 11)


def test_a_removal_before_the_savepoint_comes_back(overlay: Overlay) -> None:
    apply(overlay, Delete("kept"))
    apply_and_leave(overlay, Put("kept", b"2"))
    assert overlay.stored(ENTRY, "kept") is None


def test_a_lease_that_was_dropped_fences_nothing(overlay: Overlay) -> None:
    apply_and_leave(overlay, Acquire("l", "id", 50))
    with pytest.raises(ServiceError) as caught:
        apply(overlay, Put("a", b"1", lease_id="id"))
    assert caught.value.code == "lease_lost"


def test_a_lease_that_was_released_inside_is_alive_again(overlay: Overlay) -> None:
    apply(overlay, Acquire("l", "id", 50))
    apply_and_leave(overlay, Release("l", "id"))
    apply(overlay, Put("a", b"1", lease_id="id"))
    assert overlay.stored(ENTRY, "a") is not None


def test_an_inner_savepoint_drops_only_its_own_changes(overlay: Overlay) -> None:
    with overlay.savepoint():
        apply(overlay, Put("outer", b"1"))
        apply_and_leave(overlay, Put("inner", b"1"))
        apply(overlay, Put("last", b"1"))
    assert [(change.name, change.revision) for change in overlay.changes()] == [("outer", 11), ("last", 12)]


def test_an_outer_savepoint_drops_what_an_inner_one_has_kept(overlay: Overlay) -> None:
    with suppress(RefusedError), overlay.savepoint():
        with overlay.savepoint():
            apply(overlay, Put("inner", b"1"))
        raise RefusedError
    assert (overlay.changes(), overlay.revision) == ([], HEAD)


def test_changes_are_in_the_order_of_revisions_after_a_savepoint_was_left(overlay: Overlay) -> None:
    apply(overlay, Put("a", b"1"))
    apply(overlay, Put("b", b"1"))
    apply_and_leave(overlay, Put("a", b"2"))
    apply(overlay, Put("a", b"3"))
    assert [(change.name, change.revision) for change in overlay.changes()] == [("b", 12), ("a", 13)]
