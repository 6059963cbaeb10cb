"""The rules, one at a time."""

from collections.abc import Callable

import pytest
from driving import json_text, stored_state

from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.model import (
    ENTRY,
    Change,
    Condition,
    Delete,
    Deleted,
    Deletion,
    Entry,
    Expire,
    Expired,
    Found,
    JsonPatch,
    MergePatch,
    NotModified,
    Outcome,
    PatchStep,
    Put,
    Read,
    SingleOperation,
    Tag,
    Tags,
    Unchanged,
    Written,
    name_of,
)
from leasehold.rules import evaluate, evaluate_read

HEAD = 100
INCARNATION = "5f3a9c"
NOW = 1_000_000_000
SECOND = 1_000_000
MAX_VALUE_BYTES = 100

ALICE = Entry("user", b'{"name":"alice"}', 42, created_at=10, updated_at=20)
"""An entry without an expiry."""
SESSION = Entry("session", b'"open"', 43, created_at=10, updated_at=20, expires_at=NOW + 1)
"""An entry in its last microsecond."""
GONE = Entry("gone", b'"old"', 44, created_at=10, updated_at=20, expires_at=NOW)
"""An entry that has just expired and is still stored."""


def decide(*operations: SingleOperation) -> tuple[list[Outcome | ServiceError], list[Change]]:
    entries = {entry.key: entry for entry in (ALICE, SESSION, GONE)}
    view = State(stored_state(entries, HEAD, incarnation=INCARNATION))
    return evaluate(operations, view, HEAD, NOW, max_value_bytes=MAX_VALUE_BYTES)


def outcome_of(operation: SingleOperation) -> Outcome:
    """The outcome of one operation. Checks that the records written agree with it."""
    [outcome], changes = decide(operation)
    if isinstance(outcome, ServiceError):
        raise outcome
    expected: list[Change] = []
    if isinstance(outcome, Written):
        expected = [outcome.entry]
    elif isinstance(outcome, Deleted):
        expected = [Deletion(outcome.key, outcome.revision)]
    elif isinstance(outcome, Expired):
        expected = [Deletion(name_of(operation), outcome.revision)]
    assert changes == expected
    return outcome


def value_after(operation: SingleOperation) -> bytes:
    outcome = outcome_of(operation)
    assert isinstance(outcome, Written)
    return json_text(outcome.entry.value)


def refusal_of(operation: SingleOperation) -> ServiceError:
    """The error of one operation. Checks that nothing was written."""
    [outcome], changes = decide(operation)
    assert isinstance(outcome, ServiceError)
    assert changes == []
    return outcome


# Writing a whole value ----------------------------------------------------------------------------------------


def test_a_put_of_a_new_key_creates_an_entry() -> None:
    assert outcome_of(Put("new", b"1")) == Written(Entry("new", b"1", HEAD + 1, NOW, NOW), created=True)


def test_a_put_of_an_existing_key_keeps_its_creation_time() -> None:
    assert outcome_of(Put("user", b"1")) == Written(Entry("user", b"1", HEAD + 1, 10, NOW), created=False)


def test_a_put_of_the_same_value_creates_a_new_revision() -> None:
    assert outcome_of(Put("user", ALICE.value)) == Written(Entry("user", ALICE.value, HEAD + 1, 10, NOW), created=False)


def test_a_put_with_a_ttl_expires_that_long_after_the_commit() -> None:
    outcome = outcome_of(Put("user", b"1", ttl=30 * SECOND))
    assert outcome == Written(Entry("user", b"1", HEAD + 1, 10, NOW, NOW + 30 * SECOND), created=False)


def test_a_put_without_a_ttl_removes_the_expiry() -> None:
    assert outcome_of(Put("session", b"1")) == Written(Entry("session", b"1", HEAD + 1, 10, NOW), created=False)


def test_a_put_over_an_expired_entry_creates_a_new_entry() -> None:
    assert outcome_of(Put("gone", b"1")) == Written(Entry("gone", b"1", HEAD + 1, NOW, NOW), created=True)


def test_a_put_of_null_stores_null() -> None:
    assert value_after(Put("new", b"null")) == b"null"


# Writing a part -----------------------------------------------------------------------------------------------


def test_a_put_at_a_path_sets_the_part() -> None:
    assert value_after(Put("user", b"31", path=("age",))) == b'{"name":"alice","age":31}'


def test_a_put_at_the_empty_path_replaces_the_whole_value() -> None:
    assert value_after(Put("user", b"31", path=())) == b"31"


@pytest.mark.parametrize(
    ("path", "value"),
    [((), b"1"), (("a", "b"), b'{"a":{"b":1}}'), (("-",), b"[1]"), (("a", "-"), b'{"a":[1]}')],
)
def test_a_put_at_a_path_of_a_new_key_creates_the_containers(path: tuple[str, ...], value: bytes) -> None:
    outcome = outcome_of(Put("new", b"1", path=path))
    assert outcome == Written(Entry("new", value, HEAD + 1, NOW, NOW), created=True, path=path, part=b"1")


def test_a_put_at_a_path_of_an_expired_entry_ignores_the_old_value() -> None:
    assert value_after(Put("gone", b"1", path=("a",))) == b'{"a":1}'


def test_a_put_at_a_path_without_a_ttl_removes_the_expiry() -> None:
    outcome = outcome_of(Put("session", b"1", path=()))
    assert outcome == Written(Entry("session", b"1", HEAD + 1, 10, NOW), created=False, path=(), part=b"1")


def test_a_put_at_a_path_through_a_string_is_a_conflict() -> None:
    assert refusal_of(Put("user", b"1", path=("name", "first"))).code == "conflict"


def test_a_put_at_a_path_that_makes_the_value_too_large_is_refused() -> None:
    refusal = refusal_of(Put("user", b'"' + b"x" * 80 + b'"', path=("more",)))
    assert (refusal.code, refusal.details) == ("too_large", {"limit": MAX_VALUE_BYTES})


def test_a_put_at_a_path_that_nests_the_value_too_deep_is_refused() -> None:
    assert refusal_of(Put("user", b"[[1]]", path=("a",) * 127)).code == "invalid_json"


# Patches ------------------------------------------------------------------------------------------------------


def test_a_merge_patch_changes_the_value() -> None:
    assert value_after(MergePatch("user", {"name": None, "age": 31})) == b'{"age":31}'


def test_a_merge_patch_with_a_ttl_sets_the_expiry() -> None:
    outcome = outcome_of(MergePatch("user", {}, ttl=SECOND))
    assert outcome == Written(Entry("user", ALICE.value, HEAD + 1, 10, NOW, NOW + SECOND), created=False)


def test_a_merge_patch_that_makes_the_value_too_large_is_refused() -> None:
    assert refusal_of(MergePatch("user", {"more": "x" * 100})).code == "too_large"


def test_a_json_patch_changes_the_value() -> None:
    steps = (PatchStep("add", ("age",), 31), PatchStep("remove", ("name",)))
    assert value_after(JsonPatch("user", steps)) == b'{"age":31}'


def test_a_json_patch_with_a_failing_step_changes_nothing() -> None:
    steps = (PatchStep("add", ("age",), 31), PatchStep("test", ("name",), "bob"))
    refusal = refusal_of(JsonPatch("user", steps))
    assert (refusal.code, refusal.details) == ("patch_failed", {"step": 1})


def test_a_json_patch_that_makes_the_value_too_large_is_refused() -> None:
    assert refusal_of(JsonPatch("user", (PatchStep("add", ("more",), "x" * 100),))).code == "too_large"


# Deleting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [None, ()])
def test_a_delete_without_a_path_removes_the_entry(path: tuple[str, ...] | None) -> None:
    assert outcome_of(Delete("user", path=path)) == Deleted("user", HEAD + 1)


def test_a_delete_at_a_path_keeps_the_rest() -> None:
    assert value_after(Delete("user", path=("name",))) == b"{}"


@pytest.mark.parametrize("condition", [None, Condition(), Condition(if_match="*"), Condition(if_none_match=(1,))])
def test_a_delete_of_a_list_element_without_a_revision_is_refused(condition: Condition | None) -> None:
    [put, refused], changes = decide(Put("list", b"[[1,2]]"), Delete("list", ("0", "0"), condition=condition))
    assert isinstance(put, Written)
    assert isinstance(refused, ServiceError)
    assert (refused.code, refused.status) == ("precondition_required", 428)
    assert changes == [put.entry]


def test_a_delete_of_a_list_element_with_the_current_revision_is_done() -> None:
    condition = Condition(if_match=(HEAD + 1,))
    [_, deleted], _ = decide(Put("list", b"[[1,2]]"), Delete("list", ("0", "0"), condition=condition))
    assert isinstance(deleted, Written)
    assert deleted.entry.value == b"[[2]]"


def test_a_delete_of_a_missing_part_is_not_found() -> None:
    assert refusal_of(Delete("user", path=("age",))).code == "path_not_found"


def test_expiry_removes_an_expired_entry() -> None:
    assert outcome_of(Expire(ENTRY, "gone")) == Expired(HEAD + 1)


@pytest.mark.parametrize("key", ["session", "user", "new"])
def test_expiry_keeps_live_entries_and_ignores_missing_ones(key: str) -> None:
    assert outcome_of(Expire(ENTRY, key)) == Unchanged()


# Missing entries ----------------------------------------------------------------------------------------------

MakeChange = Callable[[str, Condition | None], SingleOperation]

CHANGES_OF_WHAT_EXISTS: dict[str, MakeChange] = {
    "delete": lambda key, condition: Delete(key, condition=condition),
    "delete of a part": lambda key, condition: Delete(key, path=("name",), condition=condition),
    "merge patch": lambda key, condition: MergePatch(key, {}, condition=condition),
    "JSON patch": lambda key, condition: JsonPatch(key, (), condition=condition),
}
of_what_exists = pytest.mark.parametrize("change", CHANGES_OF_WHAT_EXISTS.values(), ids=CHANGES_OF_WHAT_EXISTS.keys())


@pytest.mark.parametrize("key", ["new", "gone"])
@of_what_exists
def test_a_change_of_a_missing_or_expired_key_is_not_found(change: MakeChange, key: str) -> None:
    refusal = refusal_of(change(key, None))
    assert (refusal.code, refusal.message) == ("not_found", "key does not exist")


@of_what_exists
def test_a_missing_key_is_reported_before_a_failed_precondition(change: MakeChange) -> None:
    assert refusal_of(change("new", Condition(if_match="*"))).code == "not_found"


def test_an_entry_expires_exactly_at_its_expiry() -> None:
    assert outcome_of(Delete("session")) == Deleted("session", HEAD + 1)


# Preconditions ------------------------------------------------------------------------------------------------

HOLDING = [
    ("user", Condition()),
    ("user", Condition(if_match="*")),
    ("user", Condition(if_match=(42,))),
    ("user", Condition(if_match=(7, 42))),
    ("user", Condition(if_match=((42, INCARNATION),))),
    ("user", Condition(if_match=((42, "0d15ea"), (42, INCARNATION)))),
    ("user", Condition(if_none_match=((42, "0d15ea"),))),
    ("user", Condition(if_none_match=(41, 43))),
    ("user", Condition(if_match=(42,), if_none_match=(41,))),
    ("new", Condition(if_none_match="*")),
    ("new", Condition(if_none_match=(42,))),
    ("gone", Condition(if_none_match="*")),
    ("gone", Condition(if_none_match=(44,))),
]
FAILING = [
    ("user", Condition(if_match=(41,))),
    ("user", Condition(if_match=())),
    ("user", Condition(if_match=((42, "0d15ea"),))),
    ("user", Condition(if_match=((41, INCARNATION),))),
    ("user", Condition(if_match=(), changed=((42, INCARNATION),))),
    ("user", Condition(if_none_match=((42, INCARNATION),))),
    ("user", Condition(if_none_match="*")),
    ("user", Condition(if_none_match=(41, 42))),
    ("user", Condition(if_match="*", if_none_match="*")),
    ("new", Condition(if_match="*")),
    ("new", Condition(if_match=(42,))),
    ("gone", Condition(if_match="*")),
    ("gone", Condition(if_match=(44,))),
]


@pytest.mark.parametrize("path", [None, ("a",)])
@pytest.mark.parametrize(("key", "condition"), HOLDING)
def test_a_put_whose_precondition_holds_is_done(key: str, condition: Condition, path: tuple[str, ...] | None) -> None:
    assert isinstance(outcome_of(Put(key, b"1", path=path, condition=condition)), Written)


@pytest.mark.parametrize("path", [None, ("a",)])
@pytest.mark.parametrize(("key", "condition"), FAILING)
def test_a_put_whose_precondition_fails_is_refused(
    key: str, condition: Condition, path: tuple[str, ...] | None
) -> None:
    assert refusal_of(Put(key, b"1", path=path, condition=condition)).code == "precondition_failed"


@of_what_exists
def test_a_change_whose_precondition_holds_is_done(change: MakeChange) -> None:
    assert isinstance(outcome_of(change("user", Condition(if_match=(42,)))), Written | Deleted)


@of_what_exists
def test_a_change_whose_precondition_fails_is_refused(change: MakeChange) -> None:
    assert refusal_of(change("user", Condition(if_match=(41,)))).code == "precondition_failed"


def test_a_failed_precondition_returns_the_current_revision() -> None:
    refusal = refusal_of(Put("user", b"1", condition=Condition(if_match=(41,))))
    assert (refusal.details, refusal.headers) == ({"revision": 42}, {"ETag": f'"42.{INCARNATION}"'})


def test_an_etag_changed_by_a_proxy_is_refused_with_that_reason() -> None:
    refusal = refusal_of(Put("user", b"1", condition=Condition(if_match=(), changed=((42, INCARNATION),))))
    assert refusal.message.startswith("a proxy that compresses has changed the ETag")
    assert (refusal.details, refusal.headers) == ({"revision": 42}, {"ETag": f'"42.{INCARNATION}"'})


def test_a_failed_precondition_on_a_missing_key_returns_no_revision() -> None:
    refusal = refusal_of(Put("new", b"1", condition=Condition(if_match=(41,))))
    assert (refusal.details, refusal.headers) == ({"revision": None}, {})


# Batches ------------------------------------------------------------------------------------------------------


def test_an_empty_batch_writes_nothing() -> None:
    assert decide() == ([], [])


def test_each_change_of_a_batch_takes_the_next_revision() -> None:
    outcomes, _ = decide(Put("a", b"1"), Put("b", b"2"), Delete("user"))
    assert outcomes == [
        Written(Entry("a", b"1", HEAD + 1, NOW, NOW), created=True),
        Written(Entry("b", b"2", HEAD + 2, NOW, NOW), created=True),
        Deleted("user", HEAD + 3),
    ]


def test_a_refused_operation_takes_no_revision_and_does_not_affect_the_others() -> None:
    outcomes, changes = decide(Put("a", b"1"), Delete("new"), Put("b", b"2"))
    assert isinstance(outcomes[1], ServiceError)
    first, second = Entry("a", b"1", HEAD + 1, NOW, NOW), Entry("b", b"2", HEAD + 2, NOW, NOW)
    assert [outcomes[0], outcomes[2]] == [Written(first, created=True), Written(second, created=True)]
    assert changes == [first, second]


def test_an_operation_sees_the_changes_of_earlier_ones_in_the_batch() -> None:
    outcomes, _ = decide(
        Put("a", b"{}"),
        Put("a", b"1", path=("b",), condition=Condition(if_match=(HEAD + 1,))),
        Delete("a"),
        Put("a", b"2", condition=Condition(if_none_match="*")),
    )
    assert outcomes == [
        Written(Entry("a", b"{}", HEAD + 1, NOW, NOW), created=True),
        Written(Entry("a", b'{"b":1}', HEAD + 2, NOW, NOW), created=False, path=("b",), part=b"1"),
        Deleted("a", HEAD + 3),
        Written(Entry("a", b"2", HEAD + 4, NOW, NOW), created=True),
    ]


def test_of_two_writes_with_the_same_expected_revision_the_second_is_refused() -> None:
    outcomes, _ = decide(
        Put("user", b"1", condition=Condition(if_match=(42,))),
        Put("user", b"2", condition=Condition(if_match=(42,))),
    )
    assert isinstance(outcomes[1], ServiceError)
    assert outcomes[1].details == {"revision": HEAD + 1}


def test_a_key_changed_twice_is_written_once_with_its_last_value() -> None:
    _, changes = decide(Put("a", b"1"), Put("a", b"2"))
    assert changes == [Entry("a", b"2", HEAD + 2, NOW, NOW)]


def test_a_key_created_and_deleted_is_written_as_a_deletion() -> None:
    _, changes = decide(Put("a", b"1"), Delete("a"))
    assert changes == [Deletion("a", HEAD + 2)]


def test_changes_are_ordered_by_revision() -> None:
    _, changes = decide(Put("a", b"1"), Put("b", b"1"), Put("a", b"2"))
    assert [(change.name, change.revision) for change in changes] == [("b", HEAD + 2), ("a", HEAD + 3)]


# Reads --------------------------------------------------------------------------------------------------------


def test_a_read_returns_the_entry() -> None:
    assert evaluate_read(Read("user"), ALICE, INCARNATION) == Found(ALICE)


def test_a_read_of_paths_returns_the_parts_in_the_requested_order() -> None:
    found = evaluate_read(Read("user", paths=(("name",), ())), ALICE, INCARNATION)
    assert found == Found(ALICE, (b'"alice"', json_text(ALICE.value)))


def test_a_read_of_a_missing_key_is_not_found() -> None:
    with pytest.raises(ServiceError) as caught:
        evaluate_read(Read("new"), None, INCARNATION)
    assert (caught.value.code, caught.value.message) == ("not_found", "key does not exist")


def test_a_read_of_a_missing_part_is_not_found() -> None:
    with pytest.raises(ServiceError) as caught:
        evaluate_read(Read("user", paths=(("name",), ("age",))), ALICE, INCARNATION)
    assert (caught.value.code, caught.value.details) == ("path_not_found", {"path": "/age"})


@pytest.mark.parametrize("known", ["*", (42,), (41, 42), ((42, INCARNATION),)])
def test_a_read_with_the_current_revision_is_not_modified(known: Tags) -> None:
    assert evaluate_read(Read("user", condition=Condition(if_none_match=known)), ALICE, INCARNATION) == NotModified(42)


@pytest.mark.parametrize("tag", [41, (41, INCARNATION), (42, "0d15ea")])
def test_a_read_with_another_revision_or_incarnation_returns_the_entry(tag: Tag) -> None:
    assert evaluate_read(Read("user", condition=Condition(if_none_match=(tag,))), ALICE, INCARNATION) == Found(ALICE)


def test_a_read_whose_expected_revision_is_stale_is_refused() -> None:
    with pytest.raises(ServiceError) as caught:
        evaluate_read(Read("user", condition=Condition(if_match=(41,), if_none_match=(42,))), ALICE, INCARNATION)
    assert (caught.value.code, caught.value.details) == ("precondition_failed", {"revision": 42})


# Sizes --------------------------------------------------------------------------------------------------------

LARGE = Entry("large", b'{"a":"%b","b":[1,2]}' % (b"x" * 200), 45, created_at=10, updated_at=20)
"""A value stored when the limit was higher."""


def large_after(operation: SingleOperation) -> bytes | str:
    """The value stored by the operation, or the code of the refusal."""
    view = State(stored_state({"large": LARGE}, HEAD))
    [outcome], _ = evaluate([operation], view, HEAD, NOW, max_value_bytes=MAX_VALUE_BYTES)
    if isinstance(outcome, ServiceError):
        return outcome.code
    assert isinstance(outcome, Written)
    return json_text(outcome.entry.value)


def test_a_value_whose_stored_text_is_too_large_is_refused() -> None:
    refusal = refusal_of(Put("new", b'"%b"' % (b"x" * 99)))
    assert (refusal.code, refusal.details) == ("too_large", {"limit": MAX_VALUE_BYTES})


@pytest.mark.parametrize(
    "operation",
    [
        Delete("large", ("b", "0"), condition=Condition(if_match=(LARGE.revision,))),
        Put("large", b"0", ("b",)),
        Put("large", b"3", ("b", "0")),
        Put("large", b'"%b"' % (b"x" * 150)),
        MergePatch("large", {"b": None}),
        JsonPatch("large", (PatchStep("remove", ("b", "1")),)),
    ],
)
def test_a_change_that_does_not_enlarge_an_oversized_value_is_done(operation: SingleOperation) -> None:
    assert len(large_after(operation)) > MAX_VALUE_BYTES


@pytest.mark.parametrize(
    "operation",
    [
        Put("large", b"33", ("b", "0")),
        Put("large", b'"%b"' % (b"x" * 250)),
        MergePatch("large", {"c": None, "d": 1}),
        JsonPatch("large", (PatchStep("add", ("b", "-"), 1),)),
    ],
)
def test_a_change_that_enlarges_an_oversized_value_is_refused(operation: SingleOperation) -> None:
    assert large_after(operation) == "too_large"


# Missing containers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("list", "0"), b'{"list":{"0":1}}'),
        (("0",), b'{"0":1}'),
        (("0", "0"), b'{"0":{"0":1}}'),
        (("list", "-"), b'{"list":[1]}'),
        (("-",), b"[1]"),
    ],
)
def test_a_missing_container_becomes_a_list_only_if_the_path_ends_in_a_dash(
    path: tuple[str, ...], value: bytes
) -> None:
    assert value_after(Put("new", b"1", path)) == value
