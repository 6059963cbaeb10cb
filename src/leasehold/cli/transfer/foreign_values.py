"""What the bytes of a value in Consul or etcd become. Both store bytes and know no types."""

from typing import Final

import msgspec

from leasehold.cli.transfer.choices import ValueKind
from leasehold.cli.transfer.entry_lines import DEFAULT_MEDIA
from leasehold.errors import ServiceError
from leasehold.model import Binary, Content, Value
from leasehold.values import parse_json

_encode: Final = msgspec.json.Encoder().encode
_BEGIN_OF_CONTAINERS: Final = (b"{", b"[")


def value_of(data: bytes, kind: ValueKind) -> Value:
    """Raises ServiceError if these bytes cannot be read as `kind` says."""
    if kind == "bytes":
        return Binary(DEFAULT_MEDIA, Content(data))
    if kind == "json":
        parse_json(data)
        return data
    if kind == "text":
        return _text_of(data)
    return _guessed(data)


def _guessed(data: bytes) -> Value:
    """An object or a list becomes this JSON value. So do numbers, strings in quotes, `true`, `false` and `null`, but
    only if the service stores them with the same characters: `5432`, but not `007`, `1.10` or `1e3`, which are
    strings then. Other text is a string; what is not text stays bytes.
    """
    try:
        stored = parse_json(data)
    except ServiceError:
        pass
    else:
        if stored == data or data.lstrip().startswith(_BEGIN_OF_CONTAINERS):
            return data
    try:
        return _text_of(data)
    except ServiceError:
        return Binary(DEFAULT_MEDIA, Content(data))


def _text_of(data: bytes) -> bytes:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ServiceError("invalid_json", "the value is not text in UTF-8") from error
    if "\0" in text:
        raise ServiceError("invalid_json", "the value contains U+0000, which a string cannot have")
    return _encode(text)
