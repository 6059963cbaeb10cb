"""An entry as an item of a list, in JSON or MessagePack, with its value or without."""

from collections.abc import Callable

from leasehold import values
from leasehold.errors import ServiceError
from leasehold.http.media_types import Media
from leasehold.model import Entry
from leasehold.values.entry_text import entry_json, partial_entry_json


def encoder_of(media: Media, *, with_values: bool) -> Callable[[Entry], bytes]:
    """How an item is encoded in this representation."""
    if media is Media.MESSAGEPACK:
        return packed_entry if with_values else _packed_without_value
    return entry_json if with_values else _entry_without_value


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
