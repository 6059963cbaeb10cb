"""An entry as JSON text, for responses and for files, and as MessagePack.

The value of an entry may be bytes, which JSON does not have. Then responses in JSON have the members `media` and
`size`, and the value in base64 only if it was asked for; files have the members `media` and `base64`; MessagePack has
`media`, `size`, and the value as binary data.
"""

from itertools import chain
from typing import Final

import msgspec

from leasehold.model import Binary, Entry
from leasehold.times import format_time, time_bytes
from leasehold.values.binary import PIECE_BYTES, base64_pieces, slices
from leasehold.values.collector import collector_paused
from leasehold.values.decoding import to_messagepack_steps
from leasehold.values.json_pieces import PIECE_BYTES as DECODED_PIECE_BYTES
from leasehold.values.steps import Encoded, Pieces
from leasehold.values.text import to_messagepack, unreadable

encode_text = msgspec.json.Encoder().encode
"""JSON text of a string."""
_pack: Final = msgspec.msgpack.Encoder().encode
_MAP: Final = 0x80
"""Of MessagePack: a map with up to 15 members."""
_LONG_BYTES: Final = b"\xc6"
"""Of MessagePack: bytes, behind their length in four bytes."""

ENTRY_JSON: Final = b'{"key":%b,"value":%b,"revision":%b,"created_at":"%b","updated_at":"%b"}'
"""The format string of an entry that does not expire. Its fields are bytes: JSON of the key, and text."""
PLAIN_KEY_ENTRY_JSON: Final = ENTRY_JSON.replace(b'"key":%b', b'"key":"%b"')
"""As ENTRY_JSON, for a key whose characters JSON does not escape. Its first field is the key itself."""


def entry_json(entry: Entry) -> bytes:
    """`{"key":…,"value":…,"revision":…,"created_at":…,"updated_at":…}`, and `expires_at` if the entry has one.

    If the value is bytes: `{"key":…,"media":…,"size":…,"revision":…, …}`.
    Raises `internal` if the value is UNREADABLE. One format string takes half of the time of an encoder.
    """
    if not entry.value:
        return _entry_without_text(entry)
    created_at = time_bytes(entry.created_at)
    updated_at = created_at if entry.updated_at == entry.created_at else time_bytes(entry.updated_at)
    text = ENTRY_JSON % (encode_text(entry.key), entry.value, b"%d" % entry.revision, created_at, updated_at)
    if entry.expires_at is None:
        return text
    return b'%b,"expires_at":"%b"}' % (text[:-1], time_bytes(entry.expires_at))


def entry_json_with_base64(entry: Entry) -> Encoded:
    """Like `entry_json`; if the value is bytes, `value` is base64 of them, in addition to `media` and `size`."""
    value = entry.value
    if not isinstance(value, Binary):
        return entry_json(entry)
    return joined_if_small(value, _pieces_with_base64(entry, value))


def _pieces_with_base64(entry: Entry, value: Binary) -> Pieces:
    yield b'{"key":%b,"media":%b,"size":%d,"value":' % (encode_text(entry.key), encode_text(value.media), len(value))
    yield from base64_json_pieces(value)
    yield _facts(entry)


def base64_json_pieces(value: Binary) -> Pieces:
    """The JSON string of the bytes in base64."""
    yield b'"'
    yield from base64_pieces(value.data)
    yield b'"'


def joined_if_small(value: Binary, pieces: Pieces) -> Encoded:
    """The pieces of an encoding of `value`, joined unless it is large."""
    return pieces if len(value) > PIECE_BYTES else b"".join(pieces)


def stored_entry_json(entry: Entry) -> Encoded:
    """The line of an entry in `data.json` and in a backup. Raises like `entry_json`.

    As `entry_json`, but if the value is bytes: `{"key":…,"media":…,"base64":…,"revision":…, …}`.
    """
    value = entry.value
    if not isinstance(value, Binary):
        return entry_json(entry)
    return joined_if_small(value, _stored_pieces(entry, value))


def _stored_pieces(entry: Entry, value: Binary) -> Pieces:
    yield b'{"key":%b,"media":%b,"base64":"' % (encode_text(entry.key), encode_text(value.media))
    yield from base64_pieces(value.data)
    yield b'"' + _facts(entry)


def partial_entry_json(entry: Entry, *, value: bytes | None, path: str | None) -> bytes:
    """Like `entry_json`, with a part of the value or no value. `path` is added if the value is a single part."""
    parts = [b'{"key":', encode_text(entry.key)]
    if path is not None:
        parts += (b',"path":', encode_text(path))
    if isinstance(entry.value, Binary):
        parts.append(b',"media":%b,"size":%d' % (encode_text(entry.value.media), len(entry.value)))
    if value is not None:
        parts += (b',"value":', value)
    return b"".join((*parts, _facts(entry)))


def entry_messagepack(entry: Entry) -> bytes:
    """The members of `entry_json` as MessagePack; if the value is bytes, also `value` with the bytes as they are.

    Raises `internal`, also if MessagePack cannot represent the value.
    """
    value = entry.value
    if isinstance(value, Binary):
        return b"".join(binary_messagepack_pieces(entry, value))
    return to_messagepack(entry_json(entry))


def entry_messagepack_pieces(entry: Entry) -> Encoded:
    """`entry_messagepack`, in pieces if it is large. Then only the pieces raise."""
    value = entry.value
    if isinstance(value, Binary):
        return joined_if_small(value, binary_messagepack_pieces(entry, value))
    return entry_messagepack(entry) if len(value) <= DECODED_PIECE_BYTES else packed_pieces(entry_json(entry))


def packed_pieces(text: bytes) -> Pieces:
    """`to_messagepack` of a large text. The pieces before the last one are empty.

    The garbage collection is paused in a step, and not while a piece is sent: the client may not read.
    """
    steps = to_messagepack_steps(text)
    is_over = False
    while not is_over:
        piece = b""
        with collector_paused(len(text)):
            try:
                next(steps)
            except StopIteration as end:
                piece, is_over = end.value, True
        yield piece


def binary_messagepack_pieces(entry: Entry, value: Binary) -> Pieces:
    """`entry_messagepack` of an entry with this value."""
    facts: dict[str, str | int] = {"revision": entry.revision}
    facts |= {"created_at": format_time(entry.created_at), "updated_at": format_time(entry.updated_at)}
    if entry.expires_at is not None:
        facts["expires_at"] = format_time(entry.expires_at)
    members = {"key": entry.key, "media": value.media, "size": len(value)}
    yield bytes((_MAP | len(members) + 1 + len(facts),))
    yield b"".join(map(_pack, chain.from_iterable(members.items()))) + _pack("value")
    yield from binary_pieces(value)
    yield b"".join(map(_pack, chain.from_iterable(facts.items())))


def binary_pieces(value: Binary) -> Pieces:
    """The bytes as MessagePack."""
    yield _pack(memoryview(value.data)) if len(value) <= PIECE_BYTES else _LONG_BYTES + len(value).to_bytes(4, "big")
    if len(value) > PIECE_BYTES:
        yield from slices(value.data)


def receipt_json(entry: Entry, *, path: str | None) -> bytes:
    """The response to a writer without read access: `{"key":…,"path":…,"revision":…,"updated_at":…}`, and `expires_at`.

    It contains only facts of the write itself, so not `created_at`.
    """
    receipt: dict[str, str | int] = {"key": entry.key}
    if path is not None:
        receipt["path"] = path
    receipt |= {"revision": entry.revision, "updated_at": format_time(entry.updated_at)}
    if entry.expires_at is not None:
        receipt["expires_at"] = format_time(entry.expires_at)
    return encode_text(receipt)


def _entry_without_text(entry: Entry) -> bytes:
    if not isinstance(entry.value, Binary):
        raise unreadable(key=entry.key)
    return partial_entry_json(entry, value=None, path=None)


def _facts(entry: Entry) -> bytes:
    created_at = format_time(entry.created_at)
    updated_at = created_at if entry.updated_at == entry.created_at else format_time(entry.updated_at)
    expires_at = "" if entry.expires_at is None else f',"expires_at":"{format_time(entry.expires_at)}"'
    return (
        f',"revision":{entry.revision},"created_at":"{created_at}","updated_at":"{updated_at}"{expires_at}}}'.encode()
    )
