"""The one place where two versions of a large document differ, so that only this place is sent to the database."""

from typing import Final, Literal

import msgspec

from leasehold import values
from leasehold.limits import KIB
from leasehold.model import Json, Pointer

LARGE_DOCUMENT_BYTES: Final = 16 * KIB
"""Smaller ones are sent whole: finding the difference would cost more than it saves."""


class Difference(msgspec.Struct, frozen=True):
    """Write `part` at `path`, or, if it is None, remove what is there. `path` is never empty.

    An element of a list is named by its index; the index after the last one appends.
    """

    path: Pointer
    part: bytes | None


def difference(before: bytes, after: bytes) -> Difference | None:
    """The change from `before` to `after`, or None if sending it would save little.

    With several differences it is the innermost container that holds them all. 20 ms for a megabyte.
    """
    old, new = values.decode(before), values.decode(after)
    path: list[str] = []
    while True:
        step = _step_in_object(old, new) or _step_in_list(old, new)
        if step is None:
            break
        path.append(step.place)
        old, new = step.old, step.new
        if step.kind == "removed":
            return Difference(tuple(path), None)
        if step.kind == "added":
            break
    part = values.encode(new)
    return Difference(tuple(path), part) if path and 2 * len(part) < len(after) else None


class _Step(msgspec.Struct, frozen=True):
    """The only member or element in which two containers differ."""

    kind: Literal["changed", "added", "removed"]
    place: str
    old: Json = None
    new: Json = None


def _step_in_object(old: Json, new: Json) -> _Step | None:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return None
    changed = [name for name, part in new.items() if name not in old or not _are_same(old[name], part)]
    removed = [name for name in old if name not in new]
    if len(changed) + len(removed) != 1:
        return None
    if removed:
        return _Step("removed", removed[0])
    name = changed[0]
    return _Step("changed" if name in old else "added", name, old.get(name), new[name])


def _step_in_list(old: Json, new: Json) -> _Step | None:
    """An element that is in one list only counts if it was appended, or if the others have kept their order."""
    if not isinstance(old, list) or not isinstance(new, list):
        return None
    changed = [place for place, parts in enumerate(zip(old, new, strict=False)) if not _are_same(*parts)]
    if len(old) == len(new) and len(changed) == 1:
        place = changed[0]
        return _Step("changed", str(place), old[place], new[place])
    if len(old) + 1 == len(new) and not changed:
        return _Step("added", str(len(old)), None, new[-1])
    if len(old) == len(new) + 1:
        place = changed[0] if changed else len(new)
        return _Step("removed", str(place)) if _are_same(old[place + 1 :], new[place:]) else None
    return None


def _are_same(a: Json, b: Json) -> bool:
    """Unlike Python, 1, 1.0 and true are not the same."""
    return a == b and (type(a) is str or values.encode(a) == values.encode(b))
