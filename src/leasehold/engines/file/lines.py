"""One record as a line of `data.json`: a JSON object with a member for each field, in the order of the fields.

Times are text, JSON text is written unchanged, and fields with their default value are left out. The code is derived
from the record (`fields`), so a new kind needs no change here. Entries have their own code with the same result,
because there may be millions of them: decoding a line takes 0.4 µs instead of 0.6, and writing it 0.3 µs instead of
0.6.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import repeat
from typing import Annotated, Final, cast

import msgspec

from leasehold.engines.file.fields import JSON, REVISION, TIME, Field, fields_of
from leasehold.model import ENTRY, AnyKind, Binary, Entry, Record, Value
from leasehold.times import format_time, parse_time
from leasehold.values.binary import from_base64
from leasehold.values.entry_text import stored_entry_json
from leasehold.values.steps import Encoded

Convert = Callable[..., object]

_encode_line = msgspec.json.Encoder().encode


Line = msgspec.Struct
"""A decoded line. Only the types of its members are checked."""


class LineFormat(msgspec.Struct, frozen=True):
    """The functions for lines of one kind. `decode…` raise msgspec.DecodeError and UnicodeDecodeError."""

    decode_lines: Callable[[bytes], Sequence[Line]]
    """Decodes a JSON list of lines."""
    decode_line: Callable[[bytes], Line]
    records: Callable[[Sequence[Line]], list[Record]]
    """The records of lines. Raises ValueError for a time that is not in the format of `times.format_time`, and for an
    entry with neither or both of a JSON value and bytes."""
    encode: Callable[[Record], Encoded]
    """Raises ServiceError `internal` for an entry that cannot be read."""
    name_member: str
    """The member with the name of the record."""
    name_of: Callable[[Line], str]
    by_name: Callable[[Sequence[Record]], Mapping[str, Record]]
    """Records by their names."""
    revisions_of: tuple[Callable[[Line], int], ...]
    """A getter for each field that is a revision."""


@cache
def line_format(kind: AnyKind) -> LineFormat:
    """The lines of a kind."""
    fields = fields_of(kind.record)
    name = fields[0].member
    revisions_of = tuple(operator.attrgetter(field.member) for field in fields if field.annotation == REVISION)
    if kind is ENTRY:
        return LineFormat(
            _decode_entry_lines,
            _decode_any_line,
            _entries,  # type: ignore[arg-type] # of its lines
            stored_entry_json,  # type: ignore[arg-type] # of its records
            name,
            operator.attrgetter(name),
            _entries_by_key,  # type: ignore[arg-type] # of its records
            revisions_of,
        )
    line_type = _derived_line(kind.record, fields)
    return LineFormat(
        msgspec.json.Decoder(list[line_type]).decode,  # type: ignore[valid-type] # it is known at run time only
        msgspec.json.Decoder(line_type).decode,
        _derived_records(kind.record, fields),
        _derived_encode(line_type, fields),
        name,
        operator.attrgetter(name),
        _by_name,
        revisions_of,
    )


class EntryLine(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The line of an entry whose value is JSON."""

    key: str
    value: msgspec.Raw
    revision: Annotated[int, msgspec.Meta(ge=1)]
    created_at: str
    updated_at: str
    expires_at: str | None = None


_key_of, _value_of, _revision_of, _created_at_of, _updated_at_of, _expires_at_of = map(
    operator.attrgetter, EntryLine.__struct_fields__
)
_NO_VALUE: Final = msgspec.Raw()


class AnyEntryLine(msgspec.Struct, gc=False, forbid_unknown_fields=True, kw_only=True):
    """The line of any entry. It has `value`, or `media` and `base64`.

    In a list from the API, with `base64`, it has `media`, `size`, and base64 as `value`.
    """

    key: str
    value: msgspec.Raw = _NO_VALUE
    media: str | None = None
    base64: str | None = None
    size: int | None = None
    revision: Annotated[int, msgspec.Meta(ge=1)]
    created_at: str
    updated_at: str
    expires_at: str | None = None


_decode_json_lines: Final = msgspec.json.Decoder(list[EntryLine]).decode
_decode_any_lines: Final = msgspec.json.Decoder(list[AnyEntryLine]).decode
_decode_string: Final = msgspec.json.Decoder(str).decode
_decode_any_line: Final = msgspec.json.Decoder(AnyEntryLine).decode


def _decode_entry_lines(text: bytes) -> Sequence[Line]:
    """All lines as EntryLine, or all as AnyEntryLine, which takes longer."""
    try:
        return _decode_json_lines(text)
    except msgspec.ValidationError:
        return _decode_any_lines(text)


def _entries(lines: Sequence[EntryLine] | Sequence[AnyEntryLine]) -> list[Entry]:
    """The entries of lines, made column by column with `map`: a function call for each line would double the time."""
    created, updated = list(map(_created_at_of, lines)), list(map(_updated_at_of, lines))
    expiries: Sequence[str | None] = list(map(_expires_at_of, lines))
    created_at = list(map(parse_time, created))
    # `bytes` copies the value. A reference would keep the whole block in memory.
    values: Iterable[Value] = map(bytes, map(_value_of, lines))
    if lines and isinstance(lines[0], AnyEntryLine):
        values = map(_value_in, cast("Sequence[AnyEntryLine]", lines))
    return list(
        map(
            Entry,
            map(_key_of, lines),
            values,
            map(_revision_of, lines),
            created_at,
            # Most entries were never changed. Equal times mostly share one object (see `parse_time`).
            created_at if updated == created else map(parse_time, updated),
            repeat(None) if expiries.count(None) == len(expiries) else map(_time_of, expiries),
        )
    )


def _value_in(line: AnyEntryLine) -> Value:
    """The JSON text or the bytes in a line. Raises ValueError unless it has exactly one of them."""
    text, media, base64 = bytes(line.value), line.media, line.base64
    if media is None:
        if text and base64 is None and line.size is None:
            return text
    elif text and base64 is None and line.size is not None:
        base64 = _decode_string(text)
        text = b""
    if text or media is None or base64 is None:
        raise ValueError("an entry has a value, or media and base64")
    content = from_base64(base64)
    if line.size not in (None, len(content)):
        raise ValueError("the size is another one")
    return Binary(media, content)


def _entries_by_key(entries: Sequence[Entry]) -> Mapping[str, Record]:
    """As `_by_name`, but without a property call for each entry."""
    return {entry.key: entry for entry in entries}


class RemovalLine(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A removal as a line: the name of the kind, the name that was removed, and the revision of the removal."""

    kind: str
    name: str
    revision: Annotated[int, msgspec.Meta(ge=1)]


decode_removals = msgspec.json.Decoder(list[RemovalLine]).decode
decode_removal = msgspec.json.Decoder(RemovalLine).decode
encode_removal = msgspec.json.Encoder().encode


# Derived from the record ------------------------------------------------------------------------------------------


def _derived_records(record_type: type[Record], fields: Sequence[Field]) -> Callable[[Sequence[Line]], list[Record]]:
    values_of = operator.attrgetter(*(field.member for field in fields))
    conversions = _conversions(fields, _FROM_TEXT)

    def record(line: Line) -> Record:
        values = list(values_of(line))
        for index, convert in conversions:
            values[index] = convert(values[index])
        return record_type(*values)

    return lambda lines: [record(line) for line in lines]


def _derived_line(record_type: type[Record], fields: Sequence[Field]) -> type[msgspec.Struct]:
    """A `Line` whose members are those of the record in text."""
    members = [
        (field.member, field.text_type)
        if field.default is msgspec.NODEFAULT
        else (field.member, field.text_type, field.default)
        for field in fields
    ]
    return msgspec.defstruct(
        f"{record_type.__name__}Line",
        members,
        gc=False,
        forbid_unknown_fields=True,
        omit_defaults=True,
    )


def _derived_encode(line_type: type[msgspec.Struct], fields: Sequence[Field]) -> Callable[[Record], bytes]:
    values_of = operator.attrgetter(*(field.name for field in fields))
    conversions = _conversions(fields, _TO_TEXT)

    def encode(record: Record) -> bytes:
        values = list(values_of(record))
        for index, convert in conversions:
            values[index] = convert(values[index])
        return _encode_line(line_type(*values))

    return encode


def _by_name(records: Sequence[Record]) -> Mapping[str, Record]:
    return {record.name: record for record in records}


def _conversions(fields: Sequence[Field], by_annotation: Mapping[str, Convert]) -> Sequence[tuple[int, Convert]]:
    """The indexes of the fields whose value in text differs from that in the record, with the conversion."""
    return [
        (index, by_annotation[field.annotation])
        for index, field in enumerate(fields)
        if field.annotation in by_annotation
    ]


def _time_of(text: str | None) -> int | None:
    return None if text is None else parse_time(text)


def _text_of(time: int | None) -> str | None:
    return None if time is None else format_time(time)


_FROM_TEXT: Final[Mapping[str, Convert]] = {TIME: _time_of, JSON: bytes}
_TO_TEXT: Final[Mapping[str, Convert]] = {TIME: _text_of, JSON: msgspec.Raw}
