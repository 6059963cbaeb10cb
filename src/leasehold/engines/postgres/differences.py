"""The one place where two versions of a large document differ, so that only this place is sent to the database."""

from typing import Final

import msgspec

from leasehold import values
from leasehold.limits import KIB
from leasehold.model import Json, Pointer

LARGE_DOCUMENT_BYTES: Final = 16 * KIB
"""Smaller ones are sent whole: finding the difference would cost more than it saves."""


class Difference(msgspec.Struct, frozen=True):
    """Write `part` at `path`, or, if it is None, remove what is there. `path` is never empty.

    An element of a list is named by its index; the index behind the last one appends.
    """

    path: Pointer
    part: bytes | None


def difference(before: bytes, after: bytes) -> Difference | None:
    """What makes `after` of `before`, or None if it must be sent whole.

    With several differences it is the innermost container that holds them all. It is applied here once more and the
    text compared, because Python takes 1, 1.0 and true for equal.
    """
    old, new = values.decode(before), values.decode(after)
    path: list[str] = []
    container: Json = None
    part, removed = new, False
    place: int | str
    current = old
    while (step := _step(current, part)) is not None:
        place, removed = step
        container = current
        path.append(str(place))
        if removed:
            break
        # `_step` names members of an object by their name and elements of a list by their index.
        part = part[place]  # type: ignore[index]
        if not _has(current, place):
            break
        current = current[place]  # type: ignore[index]
    if not path:
        return None
    encoded = None if removed else values.encode(part)
    if encoded is not None and 2 * len(encoded) > len(after):
        return None
    _apply(container, path[-1], part, removed=removed)
    return Difference(tuple(path), encoded) if values.encode(old) == after else None


def _step(old: Json, new: Json) -> tuple[int | str, bool] | None:
    """The only member or element in which two containers differ, and whether it was removed; None if there is none."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [name for name, part in new.items() if name not in old or old[name] != part]
        missing = [name for name in old if name not in new]
        if len(names) + len(missing) == 1:
            return (names + missing)[0], bool(missing)
    elif isinstance(old, list) and isinstance(new, list):
        return _step_in_lists(old, new)
    return None


def _step_in_lists(old: list[Json], new: list[Json]) -> tuple[int, bool] | None:
    differing = [index for index, (a, b) in enumerate(zip(old, new, strict=False)) if a != b]
    if len(new) == len(old):
        return (differing[0], False) if len(differing) == 1 else None
    if len(new) == len(old) + 1:
        return None if differing else (len(old), False)
    if len(new) == len(old) - 1:
        index = differing[0] if differing else len(new)
        return (index, True) if old[index + 1 :] == new[index:] else None
    return None


def _has(container: Json, place: int | str) -> bool:
    if isinstance(container, dict):
        return place in container
    return isinstance(container, list) and isinstance(place, int) and place < len(container)


def _apply(container: Json, place: str, part: Json, *, removed: bool) -> None:
    if isinstance(container, dict):
        if removed:
            del container[place]
        else:
            container[place] = part
    elif isinstance(container, list):
        index = int(place)
        if removed:
            del container[index]
        else:
            container[index : index + 1] = [part]
