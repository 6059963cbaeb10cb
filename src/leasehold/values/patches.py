"""Merge patches (RFC 7396) and JSON patches (RFC 6902).

They modify the value in place, as in `pointers`, and leave the patch unchanged. Each is also a generator, which yields
where its caller can let other clients go on.
"""

from collections.abc import Generator, Sequence
from itertools import repeat
from operator import is_
from typing import Final

import msgspec

from leasehold.errors import ServiceError
from leasehold.limits import MAX_CHANGE_WORK_BYTES, MAX_PATCH_OPERATIONS
from leasehold.model import Json, PatchStep, Pointer
from leasehold.values.budgets import MEMBER_WORK_BYTES, MERGED_OBJECT_WORK_BYTES, STEP_WORK_BYTES, WorkBudget
from leasehold.values.pointers import elements_of, get_at, index_of, parse_pointer, path_not_found, remove_at, set_at
from leasehold.values.steps import finished
from leasehold.values.text import decode, encode_bounded, too_large

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder().decode
_WORK_OF_STEP: Final = MAX_CHANGE_WORK_BYTES // 4
"""A step ends when it has done so much work: up to 10 ms."""
_PARSED_AT_ONCE: Final = 2_000
"""Operations of a patch document. With long paths, each takes up to 5 µs."""
_BOOLEANS: Final = tuple(map(_pack, (False, True)))

# Merge Patch (RFC 7396) ---------------------------------------------------------------------------------------


def merge_patch(target: Json, patch: Json, budget: WorkBudget | None = None) -> Json:
    """`target` changed by a merge patch: null removes a member, objects are merged, anything else replaces.

    Raises `too_large` when the `budget` is used up.
    """
    return finished(merge_patch_steps(target, patch, WorkBudget() if budget is None else budget))


def merge_patch_steps(target: Json, patch: Json, budget: WorkBudget) -> Generator[None, None, Json]:
    """`merge_patch` in steps."""
    if not isinstance(patch, dict):
        return patch
    merged: dict[str, Json] = target if isinstance(target, dict) else {}
    left = [(merged, patch)]
    """Objects that are to be merged: each with its patch. They are in their place already."""
    pause = budget.spent + _WORK_OF_STEP
    while left:
        into, changes = left.pop()
        budget.spend(MERGED_OBJECT_WORK_BYTES + MEMBER_WORK_BYTES * len(changes))
        for name, part in changes.items():
            if part is None:
                into.pop(name, None)
            elif isinstance(part, dict):
                inner = into.get(name)
                if not isinstance(inner, dict):
                    inner = into[name] = {}
                left.append((inner, part))
            else:
                into[name] = part
        if budget.spent > pause:
            yield
            pause = budget.spent + _WORK_OF_STEP
    return merged


# JSON Patch (RFC 6902) ----------------------------------------------------------------------------------------


def parse_json_patch(document: Json) -> tuple[PatchStep, ...]:
    """The steps of a decoded patch document. Raises `invalid_argument` and `invalid_path`, naming the step."""
    return finished(json_patch_document_steps(document))


def json_patch_document_steps(document: Json) -> Generator[None, None, tuple[PatchStep, ...]]:
    """`parse_json_patch`, in pieces of up to 10 ms."""
    if not isinstance(document, list):
        raise ServiceError("invalid_argument", "a JSON Patch is a list of operations")
    if len(document) > MAX_PATCH_OPERATIONS:
        raise ServiceError("invalid_argument", f"a JSON Patch has at most {MAX_PATCH_OPERATIONS} operations")
    steps: list[PatchStep] = []
    for index, members in enumerate(document):
        try:
            steps.append(_parse_step(members))
        except ServiceError as error:
            raise ServiceError(error.code, f"operation {index}: {error.message}") from error
        if index % _PARSED_AT_ONCE == _PARSED_AT_ONCE - 1:
            yield
    return tuple(steps)


def _parse_step(members: Json) -> PatchStep:
    if not isinstance(members, dict):
        raise ServiceError("invalid_argument", "not an object")
    path = _parse_step_pointer(members, "path")
    match members.get("op"):
        case "add" | "replace" | "test" as op:
            if "value" not in members:
                raise ServiceError("invalid_argument", "value is missing")
            return PatchStep(op, path, value=members["value"])
        case "move" | "copy" as op:
            return PatchStep(op, path, source=_parse_step_pointer(members, "from"))
        case "remove" as op:
            return PatchStep(op, path)
        case _:
            raise ServiceError("invalid_argument", "op is not add, remove, replace, move, copy or test")


def _parse_step_pointer(members: dict[str, Json], name: str) -> Pointer:
    text = members.get(name)
    if not isinstance(text, str):
        raise ServiceError("invalid_argument", f"{name} is missing or not a string")
    return parse_pointer(text)


def json_patch(value: Json, steps: Sequence[PatchStep], *, max_bytes: int, budget: WorkBudget | None = None) -> Json:
    """`value` after all `steps`.

    Raises `patch_failed` with the index of the `step` that fails. Raises `too_large` if the `budget` is exceeded, or as
    soon as the copied parts add up to more than `max_bytes`: otherwise a few dozen steps that copy the whole value into
    itself would exhaust the memory.
    """
    return finished(json_patch_steps(value, steps, max_bytes, WorkBudget() if budget is None else budget))


def json_patch_steps(
    value: Json, steps: Sequence[PatchStep], max_bytes: int, budget: WorkBudget
) -> Generator[None, None, Json]:
    """`json_patch` in steps, each of one or more steps of the patch."""
    patching = _Patching(max_bytes, budget)
    pause = budget.spent + _WORK_OF_STEP
    for index, step in enumerate(steps):
        try:
            value = patching.apply(value, step)
        except ServiceError as refusal:
            if refusal.code in ("too_large", "invalid_json"):
                raise
            raise ServiceError(
                "patch_failed", f"operation {index}: {refusal.message}", details={"step": index}
            ) from refusal
        if budget.spent > pause:
            yield
            pause = budget.spent + _WORK_OF_STEP
    return value


class _Patching:
    """The steps of one JSON Patch, with the work and the copied bytes that are left for them."""

    def __init__(self, max_bytes: int, budget: WorkBudget) -> None:
        self._max_bytes = max_bytes
        self._bytes_to_copy = max_bytes
        self._budget = budget

    def apply(self, value: Json, step: PatchStep) -> Json:
        path = step.path
        self._budget.spend(STEP_WORK_BYTES)
        self._budget.follow(path, step.source)
        match step.op:
            case "add":
                return self._insert_at(value, path, _private(step.value))
            case "replace":
                get_at(value, path)
                return set_at(value, path, _private(step.value))
            case "remove":
                if not path:
                    raise ServiceError("patch_failed", "the whole value cannot be removed")
                return self._remove_at(value, path)
            case "move":
                return self._move(value, step.source, path)
            case "copy":
                return self._insert_at(value, path, self._copy(get_at(value, step.source)))
            case _:
                if not are_equal(get_at(value, path), step.value):
                    raise ServiceError("patch_failed", "the test failed: the value is different")
                return value

    def _copy(self, part: Json) -> Json:
        copied = encode_bounded(part, max_bytes=self._max_bytes)
        self._bytes_to_copy -= len(copied)
        if self._bytes_to_copy < 0:
            raise too_large(self._max_bytes)
        return decode(copied)

    def _insert_at(self, value: Json, path: Pointer, part: Json) -> Json:
        """`add` of RFC 6902: the container exists; an element goes before the one at its index, or (`-`) at the end."""
        if not path:
            return part
        *way, last = path
        container = get_at(value, tuple(way))
        if isinstance(container, dict):
            container[last] = part
            return value
        elements = elements_of(container)
        index = len(elements) if last == "-" else index_of(last)
        if index is None or index > len(elements):
            raise path_not_found(path)
        self._budget.move_elements(len(elements) - index)
        elements.insert(index, part)
        return value

    def _remove_at(self, value: Json, path: Pointer) -> Json:
        *way, last = path
        container = get_at(value, tuple(way))
        if isinstance(container, list) and (index := index_of(last)) is not None:
            self._budget.move_elements(max(len(container) - index, 0))
        return remove_at(value, path)

    def _move(self, value: Json, source: Pointer, path: Pointer) -> Json:
        part = get_at(value, source)
        if path == source:
            return value
        if path[: len(source)] == source:
            raise ServiceError("patch_failed", "a part cannot be moved into itself")
        return self._insert_at(self._remove_at(value, source), path, part)


def _private(part: Json) -> Json:
    """A copy that later steps may change. The step keeps its own value, because a retry applies it again.

    For floats, MessagePack takes a fifth of the time of JSON.
    """
    copy: Json = _unpack(_pack(part))
    return copy


def are_equal(left: Json, right: Json) -> bool:
    """Equality of JSON values: 1 equals 1.0 but not true, and the order of members does not matter. Recursion is as
    deep as the nesting."""
    # Comparing in Python is a hundred times as fast as the walk below. It differs from JSON only in that true equals 1.
    if left != right:
        return False
    try:
        mine, others = _pack(left), _pack(right)
    except OverflowError:  # an integer that another program has stored
        return _have_same_booleans(left, right)
    if mine == others or not (_may_hold_booleans(mine) or _may_hold_booleans(others)):
        return True
    return _have_same_booleans(left, right)


def _may_hold_booleans(packed: bytes) -> bool:
    """Whether a value may hold booleans. `packed`: its MessagePack, which for floats is made ten times as fast as JSON.

    Numbers and strings may have the same bytes.
    """
    return any(boolean in packed for boolean in _BOOLEANS)


def _have_same_booleans(left: Json, right: Json) -> bool:
    """Whether two values that are equal in Python have booleans at the same places."""
    mine: list[Json] = [left]
    others: list[Json] = [right]
    while mine:
        kinds, other_kinds = list(map(type, mine)), list(map(type, others))
        if kinds != other_kinds and _which_are_booleans(kinds) != _which_are_booleans(other_kinds):
            return False
        if set(kinds).isdisjoint((list, dict)):
            return True
        pairs = [pair for pair in zip(mine, others, strict=True) if type(pair[0]) is list or type(pair[0]) is dict]
        mine, others = [], []
        for one, other in pairs:
            if isinstance(one, dict) and isinstance(other, dict):
                mine += one.values()
                others += map(other.__getitem__, one)
            elif isinstance(one, list) and isinstance(other, list):
                mine += one
                others += other
    return True


def _which_are_booleans(kinds: Sequence[type]) -> list[bool]:
    return list(map(is_, kinds, repeat(bool)))
