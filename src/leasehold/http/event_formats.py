"""How the events of a watch are encoded: as server-sent events, as lines of JSON, or as MessagePack maps.

Each result is one chunk of a chunked response (RFC 9112, section 7.1), so that all watchers with the same format are
sent the same bytes. To add an event, add a method here and to `store.watchers.Format`; `docs/watch.md` lists them.

Server-sent events: readers deliver half an event if a stream ends inside it, so `data` comes first, and `id` last. An
event without data would still move the id in some readers, so there is none. The names `error` and `open` are not used,
because EventSource fires its own events with these names.

A watcher that catches up is sent hundreds of puts at a time. They are encoded together, column by column, which gives
the same bytes as encoding them one by one. It takes 0.4 of the time as text, and 0.6 as MessagePack.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from typing import Final, TypeVar, cast

import msgspec

from leasehold import values
from leasehold.engines.base import revision_of
from leasehold.errors import ServiceError
from leasehold.http.media_types import Media
from leasehold.http.pieces import chunked
from leasehold.model import Change, Deletion, Entry, Json, Lease, Record
from leasehold.times import format_time, time_bytes
from leasehold.values.entry_text import (
    PLAIN_KEY_ENTRY_JSON,
    entry_json,
    entry_messagepack,
    partial_entry_json,
)

_UNICODE_LINE_ENDS: Final = re.compile(rb"\xe2\x80[\xa8\xa9]|\xc2\x85")
_encode_text: Final = msgspec.json.Encoder().encode
_pack: Final = msgspec.msgpack.Encoder().encode

T = TypeVar("T")

Frame = Callable[[bytes, bytes, int | None], bytes]
"""`frame(name, data, id)` → the bytes of one event. `data` is JSON text on one line."""
Put = Callable[[Entry, int | None, bool], bytes]
"""`put(entry, id, with_value)` → the bytes of the event of an entry. Raises `internal` if it cannot show its value."""
Puts = Callable[[Sequence[Entry], Sequence[bytes], Sequence[int]], bytes | None]
"""`puts(entries, texts, revisions)` → the joined `put(entry, entry.revision, True)` of each of them. They have JSON
values, which are `texts`, and do not expire. None if they must be encoded one by one. Raises like `put`."""

MANY_CHANGES: Final = 16
"""From so many on, changes are encoded together. It must be at least 16: see `_PACKED_LIST_BYTES`."""


def json_line(text: bytes) -> bytes:
    """Lines of JSON text, without the characters that Unicode counts as line ends: U+0085, U+2028, U+2029.

    JSON text has them only in strings, where an escape has the same meaning.
    """
    if text.isascii():
        return text  # a search for two bytes would take a third of the time of encoding many events
    if b"\xe2\x80" in text or b"\xc2\x85" in text:
        return _UNICODE_LINE_ENDS.sub(lambda match: b"\\u%04x" % ord(match[0].decode()), text)
    return text


def _server_sent(name: bytes, data: bytes, cursor: int | None) -> bytes:
    if cursor is None:
        return b"data: %b\nevent: %b\n\n" % (data, name)
    return b"data: %b\nevent: %b\nid: %d\n\n" % (data, name, cursor)


def _line(name: bytes, data: bytes, cursor: int | None) -> bytes:
    if cursor is None:
        return b'{"event":"%b","data":%b}\n' % (name, data)
    return b'{"event":"%b","id":%d,"data":%b}\n' % (name, cursor, data)


def _packed(name: bytes, data: bytes, cursor: int | None) -> bytes:
    return _packed_data(name, values.to_messagepack(data), cursor)


def _packed_data(name: bytes, packed: bytes, cursor: int | None) -> bytes:
    text = _pack(name.decode())
    if cursor is None:
        return b"\x82\xa5event%b\xa4data%b" % (text, packed)
    return b"\x83\xa5event%b\xa2id%b\xa4data%b" % (text, _pack(cursor), packed)


def _server_sent_put(entry: Entry, cursor: int | None, with_value: bool) -> bytes:  # noqa: FBT001 - see Put
    """As `_server_sent`, which would take a tenth of the time of the whole."""
    data = entry_json(entry) if with_value else partial_entry_json(entry, value=None, path=None)
    if cursor is None:
        return b"data: %b\nevent: put\n\n" % data
    return b"data: %b\nevent: put\nid: %d\n\n" % (data, cursor)


def _line_put(entry: Entry, cursor: int | None, with_value: bool) -> bytes:  # noqa: FBT001 - see Put
    """As `_line`, which would take a tenth of the time of the whole."""
    data = entry_json(entry) if with_value else partial_entry_json(entry, value=None, path=None)
    if cursor is None:
        return b'{"event":"put","data":%b}\n' % data
    return b'{"event":"put","id":%d,"data":%b}\n' % (cursor, data)


class _PackedEntry(msgspec.Struct, frozen=True, gc=False):
    """The members of `entry_json`."""

    key: str
    value: Json | msgspec.Raw | msgspec.UnsetType
    revision: int
    created_at: str
    updated_at: str
    expires_at: str | msgspec.UnsetType = msgspec.UNSET


class _PackedPut(msgspec.Struct, frozen=True, gc=False):
    event: str
    id: int | msgspec.UnsetType
    data: _PackedEntry


def _packed_put(entry: Entry, cursor: int | None, with_value: bool) -> bytes:  # noqa: FBT001 - see Put
    """Half of the time of converting the whole text of the entry: only the value is decoded."""
    text = entry.value
    if not text:
        return _packed_put_of_bytes(entry, cursor, with_value)
    value: Json | msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    if with_value:
        value = values.decode(text) if len(text) <= values.LARGE_BYTES else msgspec.Raw(values.to_messagepack(text))
    created_at = format_time(entry.created_at)
    data = _PackedEntry(
        entry.key,
        value,
        entry.revision,
        created_at,
        created_at if entry.updated_at == entry.created_at else format_time(entry.updated_at),
        msgspec.UNSET if entry.expires_at is None else format_time(entry.expires_at),
    )
    try:
        return _pack(_PackedPut("put", msgspec.UNSET if cursor is None else cursor, data))
    except (OverflowError, RecursionError) as error:
        raise values.unreadable(key=entry.key) from error


def _packed_put_of_bytes(entry: Entry, cursor: int | None, with_value: bool) -> bytes:  # noqa: FBT001 - see Put
    """If the value is bytes, or cannot be read."""
    if with_value:
        return _packed_data(b"put", entry_messagepack(entry), cursor)
    return _packed(b"put", partial_entry_json(entry, value=None, path=None), cursor)


# Many entries at once ---------------------------------------------------------------------------------------------

_key_of, _value_of, _created_at_of, _updated_at_of, _expires_at_of = map(
    operator.attrgetter, ("key", "value", "created_at", "updated_at", "expires_at")
)
_SERVER_SENT_PUT: Final = b"data: " + PLAIN_KEY_ENTRY_JSON + b"\nevent: put\nid: %b\n\n"
_LINE_PUT: Final = b'{"event":"put","id":%b,"data":' + PLAIN_KEY_ENTRY_JSON + b"}\n"
"""Format strings of an event. The fields of the entry are those of `_json_columns`."""
_PACKED_LIST_BYTES: Final = 3
"""What MessagePack writes before the items of a list with 16 to 65,535 items."""


def _times(entries: Sequence[Entry], format_one: Callable[[int], T]) -> tuple[list[T], list[T]]:
    """When the entries were created and updated. Most are written once: then both are the same."""
    created_at, updated_at = list(map(_created_at_of, entries)), list(map(_updated_at_of, entries))
    created = list(map(format_one, created_at))
    return created, created if updated_at == created_at else list(map(format_one, updated_at))


def _json_columns(entries: Sequence[Entry], texts: Sequence[bytes], revisions: Sequence[int]) -> list[Sequence[bytes]]:
    """The fields of PLAIN_KEY_ENTRY_JSON, for all entries. The keys are escaped as JSON demands.

    In a JSON list of strings, `","` is between two of them and nowhere else: within a string, a quote is escaped.
    """
    keys = _encode_text(list(map(_key_of, entries)))[2:-2].split(b'","')
    return [keys, texts, _encode_text(revisions)[1:-1].split(b","), *_times(entries, time_bytes)]


def _server_sent_puts(entries: Sequence[Entry], texts: Sequence[bytes], revisions: Sequence[int]) -> bytes:
    columns = _json_columns(entries, texts, revisions)
    fields = chain.from_iterable(zip(*columns, columns[2], strict=True))
    return _SERVER_SENT_PUT * len(entries) % tuple(fields)


def _line_puts(entries: Sequence[Entry], texts: Sequence[bytes], revisions: Sequence[int]) -> bytes:
    columns = _json_columns(entries, texts, revisions)
    fields = chain.from_iterable(zip(columns[2], *columns, strict=True))
    return _LINE_PUT * len(entries) % tuple(fields)


def _packed_puts(entries: Sequence[Entry], texts: Sequence[bytes], revisions: Sequence[int]) -> bytes | None:
    assert MANY_CHANGES <= len(entries) < 1 << 16
    if max(map(len, texts)) > values.LARGE_BYTES:
        return None  # it is not decoded, see `_packed_put`
    columns = map(_key_of, entries), values.decode_all(texts), revisions, *_times(entries, format_time)
    events = list(map(_PackedPut, repeat("put"), revisions, map(_PackedEntry, *columns)))
    try:
        return _pack(events)[_PACKED_LIST_BYTES:]
    except (OverflowError, RecursionError) as error:
        raise values.unreadable() from error


class EventFormat:
    """The format of one media type, with or without values. Implements `store.watchers.Format`."""

    def __init__(self, frame: Frame, put: Put, puts: Puts, *, is_text: bool, with_values: bool) -> None:
        self._frame = frame
        self._put = put
        self._puts = puts
        self._is_text = is_text
        self._with_values = with_values

    def changes(self, changes: Sequence[Change]) -> bytes:
        if self._with_values and len(changes) >= MANY_CHANGES:
            events = self._together(changes)
            if events is not None:
                return self._framed(events)
        revisions = list(map(revision_of, changes))
        cursors = [
            None if revision == following else revision
            for revision, following in zip(revisions, [*revisions[1:], None], strict=True)
        ]
        return self._chunk(changes, cursors)

    def _together(self, changes: Sequence[Change]) -> bytes | None:
        """The events of many changes. None unless all are entries as `Puts` demands, each alone in its revision."""
        if set(map(type, changes)) != {Entry}:
            return None
        entries = cast("Sequence[Entry]", changes)
        texts, revisions = list(map(_value_of, entries)), list(map(revision_of, entries))
        # Values that are bytes, or that cannot be read, count as false.
        if not all(texts) or any(map(_expires_at_of, entries)) or len(set(revisions)) < len(revisions):
            return None
        try:
            return self._puts(entries, texts, revisions)
        except ServiceError:  # one cannot be shown in this format
            return None

    def snapshot(self, records: Sequence[Record]) -> bytes:
        return self._chunk(records, [None] * len(records))

    def _chunk(self, changes: Sequence[Change], cursors: Sequence[int | None]) -> bytes:
        put, other, with_values = self._put, self._other_event, self._with_values
        try:
            events = [
                put(change, cursor, with_values) if type(change) is Entry else other(change, cursor)
                for change, cursor in zip(changes, cursors, strict=True)
            ]
        except ServiceError:  # one cannot be read, or not in this format; the other events must go on
            events = list(map(self._event, changes, cursors))
        return self._framed(b"".join(events))

    def _framed(self, data: bytes) -> bytes:
        # Once for all events, because a search in each of them takes a tenth of the time of the whole.
        return chunked(json_line(data) if self._is_text else data)

    def _event(self, change: Change, cursor: int | None) -> bytes:
        """The event of a change. An entry whose value cannot be shown is shown without it."""
        if type(change) is not Entry:
            return self._other_event(change, cursor)
        try:
            return self._put(change, cursor, self._with_values)
        except ServiceError:
            return self._put(change, cursor, False)  # noqa: FBT003 - see Put

    def _other_event(self, change: Change, cursor: int | None) -> bytes:
        if type(change) is Lease:
            return self._frame(b"lock", _held(change), cursor)
        if type(change) is Deletion:
            return self._frame(b"delete", _encode_text({"key": change.name, "revision": change.revision}), cursor)
        data = {"lock": change.name, "state": "free", "revision": change.revision}
        return self._frame(b"lock", _encode_text(data), cursor)

    def ready(self, revision: int) -> bytes:
        return self._mark(b"ready", revision, revision)

    def progress(self, revision: int) -> bytes:
        return self._mark(b"progress", revision, revision)

    def reset(self, revision: int) -> bytes:
        return self._mark(b"reset", revision, None)

    def _mark(self, name: bytes, revision: int, cursor: int | None) -> bytes:
        return chunked(self._frame(name, b'{"revision":%d}' % revision, cursor))

    def end(self, error: ServiceError) -> bytes:
        data = _encode_text({"error": error.code, "message": error.message, **error.details})
        return chunked(self._frame(b"end", data, None))


def _held(lease: Lease) -> bytes:
    """Without `lease_id`, which would allow everybody to end the lease."""
    return _encode_text(
        {
            "lock": lease.lock,
            "state": "held",
            "token": lease.token,
            "owner": msgspec.Raw(lease.owner),
            "expires_at": format_time(lease.expires_at),
            "revision": lease.revision,
        }
    )


def _formats(
    media: Media, frame: Frame, put: Put, puts: Puts, *, is_text: bool
) -> dict[tuple[Media, bool], EventFormat]:
    return {
        (media, with_values): EventFormat(frame, put, puts, is_text=is_text, with_values=with_values)
        for with_values in (False, True)
    }


FORMATS: Final[Mapping[tuple[Media, bool], EventFormat]] = {
    **_formats(Media.EVENTS, _server_sent, _server_sent_put, _server_sent_puts, is_text=True),
    **_formats(Media.NDJSON, _line, _line_put, _line_puts, is_text=True),
    **_formats(Media.MESSAGEPACK, _packed, _packed_put, _packed_puts, is_text=False),
}
"""By media type, and whether entries are sent with their values."""
