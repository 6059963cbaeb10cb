"""How the events of a watch are encoded: as server-sent events, as lines of JSON, or as MessagePack maps.

Each result is one chunk of a chunked response (RFC 9112, section 7.1), so that all watchers with the same format are
sent the same bytes. To add an event, add a method here and to `store.watchers.Format`; `docs/watch.md` lists them.

Server-sent events: readers deliver half an event if a stream ends inside it, so `data` comes first, and `id` last. An
event without data would still move the id in some readers, so there is none. The names `error` and `open` are not used,
because EventSource fires its own events with these names.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final

import msgspec

from leasehold import values
from leasehold.engines.base import revision_of
from leasehold.errors import ServiceError
from leasehold.http.media_types import Media
from leasehold.http.messages import chunked
from leasehold.model import Change, Deletion, Entry, Lease, Record
from leasehold.times import format_time
from leasehold.values.entry_text import entry_json, partial_entry_json

_UNICODE_LINE_ENDS: Final = re.compile(rb"\xe2\x80[\xa8\xa9]|\xc2\x85")
_encode_text: Final = msgspec.json.Encoder().encode
_pack: Final = msgspec.msgpack.Encoder().encode

Frame = Callable[[bytes, bytes, int | None], bytes]
"""`frame(name, data, id)` → the bytes of one event. `data` is JSON text on one line."""


def json_line(text: bytes) -> bytes:
    """Lines of JSON text, without the characters that Unicode counts as line ends: U+0085, U+2028, U+2029.

    JSON text has them only in strings, where an escape has the same meaning.
    """
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
    text = _pack(name.decode())
    packed = values.to_messagepack(data)
    if cursor is None:
        return b"\x82\xa5event%b\xa4data%b" % (text, packed)
    return b"\x83\xa5event%b\xa2id%b\xa4data%b" % (text, _pack(cursor), packed)


class EventFormat:
    """The format of one media type, with or without values. Implements `store.watchers.Format`."""

    def __init__(self, frame: Frame, *, is_text: bool, with_values: bool) -> None:
        self._frame = frame
        self._is_text = is_text
        self._with_values = with_values

    def changes(self, changes: Sequence[Change]) -> bytes:
        following = chain(map(revision_of, islice(changes, 1, None)), (None,))
        return self._chunk(
            self._event(change, None if change.revision == revision else change.revision)
            for change, revision in zip(changes, following, strict=True)
        )

    def snapshot(self, records: Sequence[Record]) -> bytes:
        return self._chunk(self._event(record, None) for record in records)

    def _chunk(self, events: Iterator[bytes]) -> bytes:
        data = b"".join(events)
        # Once for all events, because a search in each of them takes a tenth of the time of the whole.
        return chunked(json_line(data) if self._is_text else data)

    def _event(self, change: Change, cursor: int | None) -> bytes:
        if type(change) is Entry:
            if self._with_values:
                try:
                    return self._frame(b"put", entry_json(change), cursor)
                except ServiceError:  # it cannot be read, or not in this format; the other events must go on
                    pass
            return self._frame(b"put", partial_entry_json(change, value=None, path=None), cursor)
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


def _formats(media: Media, frame: Frame, *, is_text: bool) -> dict[tuple[Media, bool], EventFormat]:
    return {
        (media, with_values): EventFormat(frame, is_text=is_text, with_values=with_values)
        for with_values in (False, True)
    }


FORMATS: Final[Mapping[tuple[Media, bool], EventFormat]] = {
    **_formats(Media.EVENTS, _server_sent, is_text=True),
    **_formats(Media.NDJSON, _line, is_text=True),
    **_formats(Media.MESSAGEPACK, _packed, is_text=False),
}
"""By media type, and whether entries are sent with their values."""
