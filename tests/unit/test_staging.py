"""Staged changes: they see the batch, have no effect before they are kept, and are then kept all at once."""

import pytest
from driving import stored_state

from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, LEASE, Acquire, Delete, Entry, Put, Release, Value
from leasehold.rules.batch import apply
from leasehold.rules.overlay import Overlay, Staging

HEAD = 10
KEPT = Entry("kept", b"1", 5, 1, 1)
ENDING = Entry("ending", b"1", 6, 1, 1, expires_at=100)
"""It has just expired."""


@pytest.fixture
def overlay() -> Overlay:
    state = stored_state({"kept": KEPT, "ending": ENDING}, HEAD)
    return Overlay(State(state), HEAD, now=100, max_value_bytes=1_000)


def names(overlay: Overlay) -> list[tuple[str, int]]:
    return [(change.name, change.revision) for change in overlay.changes()]


def value_of(overlay: Overlay, key: str) -> Value | None:
    entry = overlay.live(ENTRY, key)
    return None if entry is None else entry.value


def test_changes_that_are_not_kept_have_no_effect(overlay: Overlay) -> None:
    apply(overlay, Put("before", b"1"))
    staged = Staging(overlay)
    for operation in (Put("a", b"1"), Put("before", b"2"), Delete("kept")):
        apply(staged, operation)
    apply(overlay, Put("after", b"1"))
    assert names(overlay) == [("before", 11), ("after", 12)]
    assert overlay.stored(ENTRY, "kept") == KEPT
    assert value_of(overlay, "before") == b"1"


def test_kept_changes_are_in_the_batch_with_their_revisions(overlay: Overlay) -> None:
    apply(overlay, Put("before", b"1"))
    staged = Staging(overlay)
    apply(staged, Put("a", b"1"))
    apply(staged, Delete("kept"))
    staged.keep()
    assert (names(overlay), overlay.revision) == ([("before", 11), ("a", 12), ("kept", 13)], 13)
    apply(overlay, Put("after", b"1"))
    assert names(overlay)[-1] == ("after", 14)


def test_changes_stay_in_the_order_of_revisions_if_a_name_was_changed_before(overlay: Overlay) -> None:
    apply(overlay, Put("a", b"1"))
    apply(overlay, Put("b", b"1"))
    staged = Staging(overlay)
    apply(staged, Put("a", b"2"))
    staged.keep()
    assert names(overlay) == [("b", 12), ("a", 13)]


def test_staged_changes_see_the_batch_and_one_another(overlay: Overlay) -> None:
    apply(overlay, Put("a", b"1"))
    apply(overlay, Delete("kept"))
    staged = Staging(overlay)
    assert [value_of(staged, key) for key in ("a", "kept", "ending", "absent")] == [b"1", None, None, None]
    apply(staged, Put("a", b"2"))
    apply(staged, Put("kept", b"3"))
    assert [value_of(staged, key) for key in ("a", "kept")] == [b"2", b"3"]
    apply(staged, Delete("a"))
    assert staged.stored(ENTRY, "a") is None
    assert staged.stored(ENTRY, "ending") == ENDING


def test_leases_of_the_batch_fence_staged_changes(overlay: Overlay) -> None:
    apply(overlay, Acquire("l", "id", 50))
    apply(Staging(overlay), Put("a", b"1", lease_id="id"))
    apply(overlay, Release("l", "id"))
    with pytest.raises(ServiceError) as caught:
        apply(Staging(overlay), Put("a", b"1", lease_id="id"))
    assert caught.value.code == "lease_lost"


def test_changes_of_several_kinds_are_kept_together(overlay: Overlay) -> None:
    staged = Staging(overlay)
    apply(staged, Acquire("l", "id", 50))
    apply(staged, Put("a", b"1", lease_id="id"))
    assert (names(overlay), overlay.live(LEASE, "l")) == ([], None)
    staged.keep()
    assert names(overlay) == [("l", 11), ("a", 12)]
    apply(overlay, Put("b", b"1", lease_id="id"))
    assert names(overlay)[-1] == ("b", 13)
