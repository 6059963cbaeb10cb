"""JSON Pointers (RFC 6901): reading and changing the part of a value at a pointer.

Functions that change a value modify it in place. The caller has decoded it for this call alone and discards it if the
change is refused. The inserted part is not modified, because an engine that retries applies the same change again.
"""

import math
import re
from typing import Final

from leasehold.errors import ServiceError
from leasehold.limits import MAX_INTEGER, MAX_NESTING, MIN_INTEGER
from leasehold.model import Json, Pointer

_WRONG_ESCAPE: Final = re.compile("~(?![01])")
_FORBIDDEN: Final = re.compile("[\0\ud800-\udfff]")
_INDEX: Final = re.compile("0|[1-9][0-9]*")


def parse_pointer(text: str) -> Pointer:
    """The segments of a JSON Pointer. Raises `invalid_path`."""
    if not text:
        return ()
    if not text.startswith("/"):
        raise ServiceError("invalid_path", "a path must be empty or begin with /")
    if _WRONG_ESCAPE.search(text):
        raise ServiceError("invalid_path", "in a path, ~ is written ~0 and / in a name ~1")
    if _FORBIDDEN.search(text):
        raise ServiceError("invalid_path", "a path contains U+0000 or a lone surrogate")
    if text.count("/") > MAX_NESTING:
        raise ServiceError("invalid_path", f"a path has more than {MAX_NESTING} segments")
    if "~" in text:  # U+0000 cannot occur in the text, so it can replace the separating slashes
        return tuple(text[1:].replace("/", "\0").replace("~1", "/").replace("~0", "~").split("\0"))
    return tuple(text[1:].split("/"))


def format_pointer(path: Pointer) -> str:
    return "".join("/" + segment.replace("~", "~0").replace("/", "~1") for segment in path)


def index_of(segment: str) -> int | None:
    """The list index that `segment` stands for, or None if it is not an index (`-`, `01`, `name`)."""
    if _INDEX.fullmatch(segment) is None:
        return None
    return int(segment[:18])  # more digits would only point further past the end of any list


# Parts ---------------------------------------------------------------------------------------------


def get_at(value: Json, path: Pointer) -> Json:
    """The part at `path`. Raises `path_not_found`."""
    for segment in path:
        if isinstance(value, dict) and segment in value:
            value = value[segment]
        elif isinstance(value, list) and (index := index_of(segment)) is not None and index < len(value):
            value = value[index]
        else:
            raise path_not_found(path)
    return value


def set_at(value: Json, path: Pointer, part: Json) -> Json:
    """`value` with `part` at `path`: a member is set, an element is replaced, or (`-`) an element is appended.

    Missing containers are created: a list if only `-` is left of the path, otherwise an object, even for a numeric
    segment (objects with numeric names are common). Raises `path_not_found` for an element that a list does not have,
    and `conflict` if the path leads through a value that cannot have the next segment.
    """
    if not path:
        return part
    *way, last = path
    container = value
    for depth, segment in enumerate(way, start=1):
        if isinstance(container, dict):
            container = container.setdefault(segment, container_for(path[depth:]))
        else:
            elements = elements_of(container)
            container = elements[_place(elements, segment, path)]
    if isinstance(container, dict):
        container[last] = part
        return value
    elements = elements_of(container)
    if last == "-":
        elements.append(part)
    else:
        elements[_place(elements, last, path)] = part
    return value


def container_for(path: Pointer) -> Json:
    """The container to create for the rest of a path: a list for `-` alone, otherwise an object."""
    return [] if path == ("-",) else {}


def number_at(value: Json, path: Pointer) -> int | float:
    """The number at `path`; 0 if there is nothing. Raises `conflict` for anything else."""
    try:
        part = get_at(value, path)
    except ServiceError:
        return 0
    if isinstance(part, bool) or not isinstance(part, int | float):
        raise ServiceError("conflict", "what is to be incremented is not a number")
    return part


def sum_of(number: float, amount: float) -> int | float:
    """The sum: an exact integer, or a double if one of the two is no integer. Raises `conflict` out of range."""
    try:
        total = number + amount
    except OverflowError:
        total = math.inf
    fits = math.isfinite(total) if type(total) is float else MIN_INTEGER <= total <= MAX_INTEGER
    if not fits:
        raise ServiceError("conflict", "the sum is out of range")
    return total


def remove_at(value: Json, path: Pointer) -> Json:
    """`value` without the part at `path`, which must not be `()`. Raises `path_not_found`."""
    get_at(value, path)
    *way, last = path
    container = get_at(value, tuple(way))
    if isinstance(container, dict):
        del container[last]
    elif isinstance(container, list):
        del container[int(last)]
    return value


def elements_of(container: Json) -> list[Json]:
    """`container` as a list. Raises `conflict` for anything else."""
    if not isinstance(container, list):
        raise ServiceError("conflict", "the path leads through a value that is not an object or list")
    return container


def _place(elements: list[Json], segment: str, path: Pointer) -> int:
    """The index of the existing element that `segment` names."""
    index = index_of(segment)
    if index is None and segment != "-":
        raise ServiceError("conflict", "a segment of the path is not an index of the list")
    if index is None or index >= len(elements):
        raise path_not_found(path)
    return index


def path_not_found(path: Pointer) -> ServiceError:
    return ServiceError("path_not_found", "the value has nothing at this path", details={"path": format_pointer(path)})
