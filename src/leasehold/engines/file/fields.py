"""The fields of a record in text, derived from their annotations in `model.records`.

Files are read, checked and written with them, so a new kind of record needs no change here.
"""

from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Annotated, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from leasehold.model import JsonText, Record, Revision, Time

TIME: Final = get_args(Time)[1]
JSON: Final = get_args(JsonText)[1]
REVISION: Final = get_args(Revision)[1]
_TEXT_TYPES: Final[dict[object, object]] = {
    Time: str,
    JsonText: msgspec.Raw,
    Revision: Annotated[int, msgspec.Meta(ge=1)],
}
"""The type of a field in text, by its annotation. Fields without one have the same type as in the record."""


class Field(msgspec.Struct, frozen=True):
    """A field of a record, and its member in the JSON object."""

    name: str
    member: str
    annotation: str
    """TIME, JSON, REVISION, or empty."""
    text_type: object
    default: object = msgspec.NODEFAULT


@cache
def fields_of(record: type[Record]) -> tuple[Field, ...]:
    """The fields in their order. The first one is the name of the record."""
    hints = get_type_hints(record, include_extras=True)
    return tuple(
        Field(
            field.name, field.encode_name, _annotation(hints[field.name]), _text_type(hints[field.name]), field.default
        )
        for field in msgspec.structs.fields(record)
    )


def names_of(record: type[Record], annotation: str) -> tuple[str, ...]:
    """The fields with this annotation."""
    return tuple(field.name for field in fields_of(record) if field.annotation == annotation)


def _annotation(hint: object) -> str:
    return next((argument for part in _parts(hint) for argument in get_args(part)[1:] if part in _TEXT_TYPES), "")


def _text_type(hint: object) -> object:
    if not _annotation(hint):
        return hint
    parts = [_TEXT_TYPES.get(part, part) for part in _parts(hint)]
    return parts[0] if len(parts) == 1 else Union[tuple(parts)]  # noqa: UP007 - they are known at run time only


def _parts(hint: object) -> Iterator[object]:
    """The members of a union, or the one type that it is."""
    return iter(get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,))
