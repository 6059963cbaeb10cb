"""Partial updates: what they make of a value. They are decided in `entries`, which also stores the result.

To change a large value, it is decoded, changed and encoded again, which takes tens of milliseconds. So this can be done
before the change is in the write lane, in steps between which other clients are served (`preparation`). The lane
takes the result if the value is still the same. Otherwise it computes it itself, by the same functions.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Final, cast

from msgspec.structs import replace

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.limits import KIB, MAX_BATCH_WORK_BYTES
from leasehold.model import (
    Binary,
    Delete,
    Entry,
    EntryOperation,
    Increment,
    Json,
    JsonPatch,
    Keyed,
    MergePatch,
    Operation,
    Prepared,
    Put,
    RequestedOperation,
    Transaction,
    ValueCheck,
)
from leasehold.rules.conditions import check, names_revisions
from leasehold.rules.value_checks import prepared_checks
from leasehold.values.budgets import WorkBudget
from leasehold.values.steps import finished

PREPARED_BYTES: Final = 256 * KIB
"""A change is prepared if its body and the values that it updates have more bytes together."""
_STEP_BYTES: Final = 64 * KIB
"""Smaller values of a transaction are updated together, in steps of about this size."""
_ATTEMPTS: Final = 3
"""How often a change is prepared if other changes of its values come first. After that, the lane does the work."""

_Peek = Callable[[str], Entry | None]


def partial_update(operation: EntryOperation, before: bytes | None, max_value_bytes: int) -> Prepared:
    """What the operation makes of the value `before` (None: there is no entry). A refusal is in the result.

    The operation must be a partial update.
    """
    prepared = operation.prepared
    if prepared is not None and prepared.before == before:
        return prepared
    return finished(_update_steps(operation, before, max_value_bytes))


def _update_steps(
    operation: EntryOperation, before: bytes | None, max_value_bytes: int
) -> Generator[None, None, Prepared]:
    text = b"" if before is None else before
    budget = WorkBudget(len(text))
    part = None
    try:
        # Also between the steps: a collection would visit all of the value. A change can make a small value large.
        with values.collector_paused(values.LARGE_BYTES + 1):
            value = _empty_for(operation) if before is None else (yield from values.decode_steps(text))
            yield
            if isinstance(operation, Increment):
                total = values.sum_of(values.number_at(value, operation.path), operation.amount)
                value, part = values.set_at(value, operation.path, total), values.encode(total)
            else:
                value = yield from _applied(value, operation, budget, max_value_bytes)
            yield
            after = text
            if not _only_tests(operation):
                after = values.encode_bounded(value, max_bytes=max_value_bytes, before=text)
            del value
    except ServiceError as refusal:
        if refusal.code != "internal":
            _release_frames(refusal)
        return Prepared(before, refusal, work_bytes=budget.spent)
    return Prepared(before, after, part, budget.spent)


def _empty_for(operation: EntryOperation) -> Json:
    """What the value of an entry that does not exist counts as."""
    assert isinstance(operation, Put | Increment), "the others need an entry"
    assert operation.path is not None
    if isinstance(operation, Increment) and not operation.path:
        return 0
    return values.container_for(operation.path)


def _applied(value: Json, operation: EntryOperation, budget: WorkBudget, max_bytes: int) -> Generator[None, None, Json]:
    """The new value. It may reuse and change `value`."""
    if isinstance(operation, MergePatch):
        return (yield from values.merge_patch_steps(value, operation.patch, budget))
    if isinstance(operation, JsonPatch):
        return (yield from values.json_patch_steps(value, operation.steps, max_bytes, budget))
    if isinstance(operation, Put):
        assert operation.path is not None
        assert isinstance(operation.value, bytes), "bytes have no parts"
        return values.set_at(value, operation.path, values.decode(operation.value))
    assert isinstance(operation, Delete)
    assert operation.path
    smaller = values.remove_at(value, operation.path)
    if not names_revisions(operation.condition) and isinstance(values.get_at(smaller, operation.path[:-1]), list):
        # A proxy may repeat a DELETE whose response was lost (RFC 9110, section 9.2.2). The second DELETE would remove
        # the next element. This check comes after `remove_at`, which refuses paths that do not exist.
        raise ServiceError(
            "precondition_required",
            "to remove an element of a list, send If-Match with the entry's ETag, or use a JSON patch",
        )
    return smaller


def _only_tests(operation: EntryOperation) -> bool:
    """Whether the update leaves the value as it is, so that it need not be encoded again."""
    return isinstance(operation, JsonPatch) and all(step.op == "test" for step in operation.steps)


def _release_frames(error: BaseException) -> None:
    """Let the refusal not refer to the decoded value, which is in the frames of its traceback."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__


# Before the lane ----------------------------------------------------------------------------------------------


def preparation(
    operation: Operation, peek: _Peek, incarnation: str, body_bytes: int, max_value_bytes: int
) -> Generator[None, None, Operation] | None:
    """Steps that prepare an operation. Their result is the operation to submit. None: it need not be prepared.

    `peek` returns a committed entry, expired or not. `incarnation`: that of the space. `body_bytes`: the size of the
    body that the operation is from.
    """
    if type(operation) is Put and operation.path is None:  # nearly always
        return None
    changes = _partial_updates_in(operation)
    keys = {change.key for change in changes} | {each.key for each in _value_checks_in(operation)}
    if not keys:
        return None
    size = body_bytes + sum(len(entry.value) for key in keys if (entry := peek(key)) is not None)
    if size <= PREPARED_BYTES:
        return None
    return _preparation_steps(operation, changes, peek, incarnation, max_value_bytes)


def _preparation_steps(
    operation: Operation, changes: Sequence[EntryOperation], peek: _Peek, incarnation: str, max_value_bytes: int
) -> Generator[None, None, Operation]:
    operation = yield from _with_checks(operation, peek)
    prepared: dict[str, Prepared] = {}
    """By key: a transaction changes each key once."""
    for _ in range(_ATTEMPTS):
        is_complete = True
        work_bytes = step_bytes = 0
        for change in changes:
            entry = peek(change.key)
            if not _may_be_prepared(change, entry, incarnation):
                continue
            before = None if entry is None else cast("bytes", entry.value)
            size = len(before or b"")
            if work_bytes and work_bytes + size > MAX_BATCH_WORK_BYTES:
                break  # the transaction will be refused
            known = prepared.get(change.key)
            if known is None or known.before != before:
                is_complete = False
                steps = _update_steps(change, before, max_value_bytes)
                at_once = len(changes) > 1 and size <= _STEP_BYTES
                known = prepared[change.key] = finished(steps) if at_once else (yield from steps)
                step_bytes += size + known.work_bytes
            work_bytes += size + known.work_bytes
            if step_bytes > _STEP_BYTES:
                yield
                step_bytes = 0
        if is_complete:
            break
    return _with(operation, prepared)


def _partial_updates_in(operation: Operation) -> Sequence[EntryOperation]:
    if isinstance(operation, Keyed):
        operation = operation.operation
    asked = operation.operations if isinstance(operation, Transaction) else (operation,)
    return [each for each in asked if isinstance(each, EntryOperation) and _is_partial(each)]


def _value_checks_in(operation: Operation) -> Sequence[ValueCheck]:
    if isinstance(operation, Keyed):
        operation = operation.operation
    checks = operation.checks if isinstance(operation, Transaction) else ()
    return [each for each in checks if isinstance(each, ValueCheck)]


def _with_checks(operation: Operation, peek: _Peek) -> Generator[None, None, Operation]:
    """The operation with its checks of values prepared."""
    if isinstance(operation, Keyed):
        inner = yield from _with_checks(operation.operation, peek)
        assert isinstance(inner, RequestedOperation)
        return replace(operation, operation=inner)
    if not isinstance(operation, Transaction):
        return operation
    return replace(operation, checks=(yield from prepared_checks(operation.checks, peek)))


def _is_partial(operation: EntryOperation) -> bool:
    if isinstance(operation, Put):
        return operation.path is not None
    return bool(operation.path) if isinstance(operation, Delete) else True


def _may_be_prepared(change: EntryOperation, entry: Entry | None, incarnation: str) -> bool:
    """Whether the lane will need the result. It refuses the others without looking at the value."""
    if isinstance(change, Put) and isinstance(change.value, Binary):
        return False
    if change.condition is not None:
        try:
            check(change.condition, entry, incarnation)
        except ServiceError:
            return False
    if entry is None:
        return isinstance(change, Put | Increment)
    return bool(entry.value)  # JSON that can be read


def _with(operation: Operation, prepared: Mapping[str, Prepared]) -> Operation:
    if isinstance(operation, Keyed):
        inner = _with(operation.operation, prepared)
        assert isinstance(inner, RequestedOperation)
        return replace(operation, operation=inner)
    if isinstance(operation, Transaction):
        operations = tuple(
            replace(each, prepared=prepared[each.key])
            if isinstance(each, EntryOperation) and _is_partial(each) and each.key in prepared
            else each
            for each in operation.operations
        )
        return replace(operation, operations=operations)
    assert isinstance(operation, EntryOperation)
    return replace(operation, prepared=prepared.get(operation.key))
