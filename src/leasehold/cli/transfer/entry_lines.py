"""Entries as lines of JSON: what `export` writes and `import` reads.

    {"key":"users/ann","value":{"n":1},"revision":42,"created_at":"…","updated_at":"…","expires_at":"…"}
    {"key":"logo","media":"image/png","base64":"iVBORw0K…","revision":43,"created_at":"…","updated_at":"…"}

These are the lines of a backup. `import` also reads lines that were written by hand, with `key` and `value` alone or
with a `ttl` in seconds, and entries as lists of the service show them with `?base64`.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec

from leasehold.cli.transfer.items import Found, FoundItems, Item, Unusable
from leasehold.errors import ServiceError
from leasehold.model import Binary, Value
from leasehold.values import from_base64, parse_json, parse_media_type, to_base64

DEFAULT_MEDIA: Final = "application/octet-stream"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ABSENT: Final = msgspec.Raw()
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A misspelt `ttl` must not be ignored, so all members that a line may have are listed, also those of no use."""

    key: str
    value: msgspec.Raw = _ABSENT
    base64: str | None = None
    media: str | None = None
    ttl: float | None = None
    expires_at: _Time | None = None
    size: msgspec.Raw = _ABSENT
    revision: msgspec.Raw = _ABSENT
    created_at: msgspec.Raw = _ABSENT
    updated_at: msgspec.Raw = _ABSENT


_QUOTED_NAMES: Final = tuple(b'"%b"' % name.encode() for name in _Line.__struct_fields__)
_decode: Final = msgspec.json.Decoder(_Line).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_encode: Final = msgspec.json.Encoder().encode


def read_lines(lines: Iterable[bytes], *, first_place: int = 1) -> FoundItems:
    """Blank lines are left out, but they count."""
    for place, line in enumerate(lines, first_place):
        text = line.strip()
        if text:
            yield read_line(place, text)


def read_line(place: int, text: bytes) -> Found:
    try:
        line = _decode(text)
        is_ambiguous = _repeats_a_member(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Unusable(place, text, _reason(error))
    if is_ambiguous:
        return Unusable(place, text, "it has a member twice")
    try:
        value = _value_of(line)
    except (msgspec.MsgspecError, ValueError):
        return Unusable(place, text, "the bytes are not valid base64", line.key)
    except ServiceError as error:
        return Unusable(place, text, error.message, line.key)
    if line.ttl is not None and line.expires_at is not None:
        return Unusable(place, text, "ttl and expires_at cannot be combined", line.key)
    expires_at = None if line.expires_at is None else (line.expires_at - _EPOCH) // _MICROSECOND
    return Item(place, text, line.key, value, expires_at, line.ttl)


def _repeats_a_member(text: bytes) -> bool:
    """Whether the line has a member twice, of which the decoder has silently taken the last one.

    Nearly all lines have each name once, and no escapes. The others are parsed again. Members that are ignored may
    contain text that is not UTF-8.
    """
    if b"\\u" not in text and all(text.count(name) < 2 for name in _QUOTED_NAMES):
        return False
    names: Sequence[str] = ()

    def note(members: Sequence[tuple[str, object]]) -> None:
        nonlocal names
        names = [name for name, _ in members]  # the line itself is the last object that is complete

    json.loads(text.decode(errors="replace"), object_pairs_hook=note, parse_int=str, parse_float=str)
    return len(set(names)) < len(names)


def _value_of(line: _Line) -> Value:
    """Raises ServiceError, and ValueError or MsgspecError for bytes that are not valid base64."""
    value = bytes(line.value)
    if line.base64 is None and line.media is None:
        if not value:
            raise ServiceError("invalid_argument", "there is no value")
        parse_json(value)
        return value
    if line.base64 is not None:
        if value:
            raise ServiceError("invalid_argument", "value and base64 cannot be combined")
        text = line.base64
    elif value:
        text = _decode_text(value)
    else:
        raise ServiceError("invalid_argument", "the value is bytes, and they are missing: list entries with ?base64")
    media = parse_media_type(DEFAULT_MEDIA if line.media is None else line.media)
    if media is None:
        raise ServiceError("invalid_argument", "media is not a media type")
    return Binary(media, from_base64(text))


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, msgspec.ValidationError):
        return f"it is not an entry: {error}"
    return f"it is not JSON: {error}"


def listed_line(item: bytes) -> bytes:
    """The line of an entry that a list of the service has shown with `?base64`."""
    if b'"media":' not in item:  # nearly all entries
        return item
    line = _decode(item)
    if line.media is None:  # the name is within the value
        return item
    head = b'{"key":%b,"media":%b,"base64":%b' % (_encode(line.key), _encode(line.media), bytes(line.value))
    facts = (("revision", line.revision), ("created_at", line.created_at), ("updated_at", line.updated_at))
    tail = b"".join(b',"%b":%b' % (name.encode(), bytes(text)) for name, text in facts)
    expires_at = item.rpartition(b',"expires_at":')[2] if line.expires_at is not None else b""
    return head + tail + (b',"expires_at":%b' % expires_at if expires_at else b"}")


class _Key(msgspec.Struct, gc=False):
    key: str


_decode_key: Final = msgspec.json.Decoder(_Key).decode


def key_of(line: bytes) -> str:
    """The key of a line that the service has written."""
    return _decode_key(line).key


def with_key(line: bytes, old: str, new: str) -> bytes:
    """A line of the service with another key. The key is its first member."""
    begin = b'{"key":%b' % _encode(old)
    assert line.startswith(begin)
    return b'{"key":%b%b' % (_encode(new), line[len(begin) :])


def base64_text(value: Binary) -> bytes:
    """The members of a value that is bytes."""
    return b'"media":%b,"base64":"%b"' % (_encode(value.media), to_base64(value.data))
