"""Messages of PostgreSQL's protocol for statements that are executed without a wait for their answer.

asyncpg always sends Bind, Execute and Sync together, and waits for the answer. The messages here have no Sync. The
formats: https://www.postgresql.org/docs/18/protocol-message-formats.html

To use a parameter of another type, add the type to `FIELDS`.
"""

from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Final
from uuid import UUID

from leasehold.engines.postgres.jsonb import to_jsonb

EPOCH_MICROSECONDS: Final = 946_684_800_000_000
"""2000-01-01, from where PostgreSQL counts."""

Field = Callable[..., bytes]
"""Encodes one value that is not None: its length (4 bytes), then the value in PostgreSQL's binary form."""

_length: Final = Struct(">i").pack
_short: Final = Struct(">h").pack
_number: Final = Struct(">iq").pack
"""The length 8 and a number."""
_array: Final = Struct(">iiIii").pack
"""Of an array: its dimensions, whether it holds NULL, the type of its elements, how many there are, the first index."""
_empty_array: Final = Struct(">iiI").pack
_NULL: Final = _length(-1)
_BINARY: Final = _short(1) + _short(1)
"""One format code, which is for all values: binary."""
EXECUTE: Final = b"E" + _length(9) + b"\0" + _length(0)
"""Execute what was bound last, and return all rows."""


def bind(statement: str, fields: Sequence[bytes]) -> bytes:
    """Bind a prepared statement to its parameters. `statement` is its name, `fields` are made by `FIELDS` or NULL."""
    body = b"".join((b"\0", statement.encode(), b"\0", _BINARY, _short(len(fields)), *fields, _BINARY))
    return b"B" + _length(len(body) + 4) + body


def parameters(fields: Sequence[Field], values: Sequence[object]) -> list[bytes]:
    """Encode the values of a statement's parameters."""
    return [_NULL if value is None else field(value) for field, value in zip(fields, values, strict=True)]


def _sized(data: bytes) -> bytes:
    return _length(len(data)) + data


def _text(value: str) -> bytes:
    return _sized(value.encode())


def _int8(value: int) -> bytes:
    return _number(8, value)


def _uuid(value: UUID) -> bytes:
    return _sized(value.bytes)


def _timestamptz(microseconds: int) -> bytes:
    return _number(8, microseconds - EPOCH_MICROSECONDS)


def _jsonb(value: bytes) -> bytes:
    return _sized(to_jsonb(value))


def _texts(values: Sequence[str]) -> list[bytes]:
    return [_length(len(text)) + text for text in map(str.encode, values)]


def _int8s(values: Sequence[int]) -> list[bytes]:
    return [_number(8, value) for value in values]


def _timestamps(values: Sequence[int]) -> list[bytes]:
    return [_number(8, value - EPOCH_MICROSECONDS) for value in values]


def _jsonbs(values: Sequence[bytes]) -> list[bytes]:
    return [_length(len(value)) + value for value in map(to_jsonb, values)]


def _byteas(values: Sequence[bytes]) -> list[bytes]:
    return [_length(len(value)) + value for value in values]


def _array_of(element_type: int, fields: Callable[..., list[bytes]]) -> Field:
    """`fields` encodes values that are not None: all of an array at once, because a call takes as long as one value."""

    def array(values: Sequence[object]) -> bytes:
        if not values:
            return _sized(_empty_array(0, 0, element_type))
        has_null = None in values
        elements = [_NULL if value is None else fields((value,))[0] for value in values] if has_null else fields(values)
        return _sized(b"".join((_array(1, has_null, element_type, len(values), 1), *elements)))

    return array


_BYTEA, _INT8, _TEXT, _TIMESTAMPTZ, _UUID, _JSONB = 17, 20, 25, 1184, 2950, 3802
FIELDS: Final[Mapping[int, Field]] = {
    _BYTEA: _sized,
    _INT8: _int8,
    _TEXT: _text,
    _TIMESTAMPTZ: _timestamptz,
    _UUID: _uuid,
    _JSONB: _jsonb,
    1001: _array_of(_BYTEA, _byteas),
    1009: _array_of(_TEXT, _texts),
    1016: _array_of(_INT8, _int8s),
    1185: _array_of(_TIMESTAMPTZ, _timestamps),
    3807: _array_of(_JSONB, _jsonbs),
}
"""By the OID of the type, which is the same in every database (`pg_type.dat`)."""
