"""An entry as an item of a list, in JSON or MessagePack, with its value or without."""

from collections.abc import Callable
from functools import partial

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.http.media_types import Media
from leasehold.model import Entry
from leasehold.values.entry_text import (
    entry_json,
    entry_json_with_base64,
    entry_messagepack_pieces,
    packed_pieces,
    partial_entry_json,
)
from leasehold.values.steps import Encoded, Pieces

Encoder = Callable[[Entry], Encoded]


def encoder_of(media: Media, *, with_values: bool, path: str | None = None, with_base64: bool = False) -> Encoder:
    """How an item is encoded in this representation. `path`: of which part of the value it is.

    `with_base64`: in JSON, values that are bytes are shown in base64.
    """
    if path is not None and with_values:
        return partial(_packed_part if media is Media.MESSAGEPACK else _part, path)
    if media is Media.MESSAGEPACK:
        return packed_entry if with_values else _packed_without_value
    if not with_values:
        return _entry_without_value
    return entry_json_with_base64 if with_base64 else entry_json


def _part(path: str, entry: Entry) -> bytes:
    part = entry.value
    assert isinstance(part, bytes)
    return partial_entry_json(entry, value=part, path=path)


def _packed_part(path: str, entry: Entry) -> Encoded:
    text = _part(path, entry)
    return values.to_messagepack(text) if len(text) <= values.PIECE_BYTES else packed_pieces(text)


def packed_entry(entry: Entry) -> Encoded:
    """An entry as MessagePack. Raises `internal`, naming the key, if MessagePack cannot represent the value."""
    try:
        packed = entry_messagepack_pieces(entry)
    except ServiceError as error:
        raise values.unreadable(key=entry.key) from error
    return packed if isinstance(packed, bytes) else _readable(entry, packed)


def _readable(entry: Entry, packed: Pieces) -> Pieces:
    try:
        yield from packed
    except ServiceError as error:
        raise values.unreadable(key=entry.key) from error


def _packed_without_value(entry: Entry) -> bytes:
    return values.to_messagepack(_entry_without_value(entry))


def _entry_without_value(entry: Entry) -> bytes:
    return partial_entry_json(entry, value=None, path=None)
