"""How a batch becomes a record of the journal; `journal` describes the format."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

import msgspec
from msgspec.structs import astuple

from leasehold.engines.file.namespaces import Head
from leasehold.limits import MIB
from leasehold.model import Binary, Change, Content, restored, storable
from leasehold.values.binary import base64_pieces

MARKER: Final = b"\xff\xc0\xf5R"
"""The first three bytes do not occur in UTF-8 text, so a key or value cannot look like a record. Bytes could, so they
are stored as base64."""
RECORD: Final = struct.Struct(">4sIQI")
"""Marker, length of the payload, first revision or number, checksum."""
SUMMED: Final = struct.Struct(">IQ")
"""Length of the payload, first revision or number."""
RECORD_HEADER_BYTES: Final = RECORD.size
NAMED: Final = 0x81
"""Of MessagePack: a map with one member."""
GROUP: Final = 0xC1
"""MessagePack does not use it."""
_BYTES_HEADER: Final = struct.Struct(">BI")
_BYTES_CODE: Final = 0xC6
"""Of MessagePack: bytes, behind their length in four bytes."""

LARGE_CONTENT_BYTES: Final = 1 * MIB
"""A change with more bytes than this is encoded in pieces: base64 of 16 MiB, its copy and its checksum take 20 ms."""


class LargeContentError(Exception):
    """A change has more than LARGE_CONTENT_BYTES: call `encode_large_record`."""


def _storable_if_small(content: object) -> bytes:
    if type(content) is Content and len(content) > LARGE_CONTENT_BYTES:
        raise LargeContentError
    return storable(content)


_encode_changes = msgspec.msgpack.Encoder(enc_hook=_storable_if_small).encode
decode_changes = msgspec.msgpack.Decoder(list[Change], dec_hook=restored).decode
decode_named = msgspec.msgpack.Decoder(dict[str, list[Change] | Head], dec_hook=restored).decode


def encode_record(first_revision: int, changes: Sequence[Change]) -> bytes:
    """The record of a batch. Takes 5 µs for 64 small entries, checksum included. Raises LargeContentError."""
    payload = _encode_changes(changes)
    checksum = zlib.crc32(payload, zlib.crc32(SUMMED.pack(len(payload), first_revision)))
    return RECORD.pack(MARKER, len(payload), first_revision, checksum) + payload


def encode_large_record(first_revision: int, changes: Sequence[Change]) -> bytes:
    """As `encode_record`, for changes of any size and for another thread than that of the event loop."""
    return framed(first_revision, large_payload(changes))


def large_payload(changes: Sequence[Change]) -> Sequence[bytes]:
    """The pieces of the payload of a batch.

    No step that keeps the interpreter takes longer than a millisecond for each MiB of JSON, or for a value that is
    bytes. The checksum and the last copy, in `framed`, let other threads run.
    """
    return [_list_header(len(changes)), *chain.from_iterable(map(_pieces_of, changes))]


def small_payload(content: Sequence[Change] | Head) -> bytes:
    """The payload of a batch or an event, without the name of the namespace. Raises LargeContentError."""
    return _encode_changes(content)


def payload_name(log: str, namespace: str) -> bytes:
    """What is before the payload of a namespace other than `default`."""
    return bytes((NAMED,)) + _encode_changes(f"{log}/{namespace}")


def framed(number: int, payload: Sequence[bytes]) -> bytes:
    """The record with a payload. `number`: its first revision, or its change number."""
    size = sum(map(len, payload))
    checksum = zlib.crc32(SUMMED.pack(size, number))
    for piece in payload:
        checksum = zlib.crc32(piece, checksum)
    return b"".join((RECORD.pack(MARKER, size, number, checksum), *payload))


def group_record(records: Sequence[bytes]) -> bytes:
    """One record with the payloads of several. Only all of them together are torn or complete."""
    pieces = [bytes((GROUP,))]
    for record in records:
        _, size, number, _ = RECORD.unpack_from(record)
        pieces.append(SUMMED.pack(size, number))
        pieces += _without_header(record)
    return framed(0, pieces)


def _without_header(record: bytes) -> Iterator[bytes]:
    """The payload of a record in pieces: one slice of it would keep the interpreter while it copies many megabytes."""
    for begin in range(RECORD_HEADER_BYTES, len(record), LARGE_CONTENT_BYTES):
        yield record[begin : begin + LARGE_CONTENT_BYTES]


def _pieces_of(change: Change) -> Iterator[bytes]:
    """The encoding of a change. The bytes of a Binary are encoded piece by piece, everything else as a whole."""
    fields = (type(change).__struct_config__.tag, *astuple(change))
    yield _list_header(len(fields))
    for field in fields:
        if type(field) is Binary:
            yield _list_header(2) + _encode_changes(field.media)
            yield _BYTES_HEADER.pack(_BYTES_CODE, 4 * -(-len(field) // 3))
            yield from base64_pieces(field.data)
        else:
            yield _encode_changes(field)


def _list_header(count: int) -> bytes:
    return _encode_changes([None] * count)[:-count]  # None is one byte
