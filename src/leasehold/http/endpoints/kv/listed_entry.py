"""An entry as an item of a list, in JSON or MessagePack, with its value or without."""

from collections.abc import Callable
from functools import partial

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.http.media_types import Media
from leasehold.model import Entry
from leasehold.values.entry_text import entry_json, partial_entry_json

Encoder = Callable[[Entry], bytes]


def encoder_of(media: Media, *, with_values: bool, path: str | None = None) -> Encoder:
    """How an item is encoded in this representation. `path`: of which part of the value it is."""
    if path is not None and with_values:
        return partial(_packed_part if media is Media.MESSAGEPACK else _part, path)
    if media is Media.MESSAGEPACK:
        return packed_entry if with_values else _packed_without_value
    return entry_json if with_values else _entry_without_value


def _part(path: str, entry: Entry) -> bytes:
    return partial_entry_json(entry, value=entry.value, path=path)


def _packed_part(path: str, entry: Entry) -> bytes:
    return values.to_messagepack(_part(path, entry))


def packed_entry(entry: Entry) -> bytes:
    """An entry as MessagePack. Raises `internal`, naming the key, if MessagePack cannot represent the value."""
    text = entry_json(entry)
    try:
        return values.to_messagepack(text)
    except ServiceError as error:
        raise values.unreadable(key=entry.key) from error


def _packed_without_value(entry: Entry) -> bytes:
    return values.to_messagepack(_entry_without_value(entry))


def _entry_without_value(entry: Entry) -> bytes:
    return partial_entry_json(entry, value=None, path=None)
