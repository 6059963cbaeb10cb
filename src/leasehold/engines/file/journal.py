"""The journal: committed batches in order, each in one record with a checksum.

    file    = header, record, record, …, zeros
    header  = magic (8), format (4), base revision (8), incarnation of the store (6), CRC-32 of these (4)
    record  = marker (4), payload length (4), first revision (8), CRC-32 of length, revision and payload (4), payload
    payload = MessagePack: the changes of one batch, whole entries and leases, in the order of their revisions.
              A value that is bytes is base64.

Numbers are big-endian. The base revision is the head when the journal was created: a reader needs the state up to it.
The incarnation shows to which `data.json` the journal belongs; format 1, of version 0.1.0, does not have it.
A record is appended only after the previous one is durable. So an invalid record without a valid one after it is the
torn end of a batch that was not acknowledged, and is cut off. Any other invalid record is corruption: the store is not
opened.

The file is filled with zeros ahead of the records: an fdatasync after overwriting zeros takes half as long as one after
growing the file (87 instead of 170 µs). The zeros are written, because after fallocate the first write to a block is as
slow as growing the file.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import astuple

from leasehold.engines.file.disk import (
    Disk,
    Identity,
    WriteError,
    close_quietly,
    pwrite_all,
    read_all,
    replace_file,
    unlink_quietly,
)
from leasehold.errors import ServiceError
from leasehold.limits import KIB, MIB
from leasehold.model import Binary, Change, Content, restored, storable
from leasehold.values.binary import base64_pieces

MAGIC: Final = b"\x89LSHOLD\n"
FORMAT: Final = 2
MARKER: Final = b"\xff\xc0\xf5R"
"""The first three bytes do not occur in UTF-8 text, so a key or value cannot look like a record. Bytes could, so they
are stored as base64."""

FIRST_CHUNK_BYTES: Final = 256 * KIB
CHUNK_BYTES: Final = 4 * MIB
_BLOCK_BYTES: Final = 4 * KIB
_ZEROS: Final = bytes(CHUNK_BYTES)

_HEADER: Final = struct.Struct(">8sIQ6s")
_HEADERS: Final = {1: struct.Struct(">8sIQ"), FORMAT: _HEADER}
_FORMAT: Final = struct.Struct(">8sI")
_RECORD: Final = struct.Struct(">4sIQI")
_SUMMED: Final = struct.Struct(">IQ")
_CRC: Final = struct.Struct(">I")
_BYTES_HEADER: Final = struct.Struct(">BI")
_BYTES_CODE: Final = 0xC6
"""Of MessagePack: bytes, behind their length in four bytes."""
HEADER_BYTES: Final = _HEADER.size + _CRC.size
RECORD_HEADER_BYTES: Final = _RECORD.size

LARGE_CONTENT_BYTES: Final = 1 * MIB
"""A change with more bytes than this is encoded in pieces: base64 of 16 MiB, its copy and its checksum take 20 ms."""


class LargeContentError(Exception):
    """A change has more than LARGE_CONTENT_BYTES: call `encode_large_record`."""


def _storable_if_small(content: object) -> bytes:
    if type(content) is Content and len(content) > LARGE_CONTENT_BYTES:
        raise LargeContentError
    return storable(content)


_encode_changes = msgspec.msgpack.Encoder(enc_hook=_storable_if_small).encode
_decode_changes = msgspec.msgpack.Decoder(list[Change], dec_hook=restored).decode


def encode_header(base_revision: int, incarnation: str) -> bytes:
    head = _HEADER.pack(MAGIC, FORMAT, base_revision, incarnation.encode("ascii"))
    return head + _CRC.pack(zlib.crc32(head))


def encode_record(first_revision: int, changes: Sequence[Change]) -> bytes:
    """The record of a batch. Takes 5 µs for 64 small entries, checksum included. Raises LargeContentError."""
    payload = _encode_changes(changes)
    checksum = zlib.crc32(payload, zlib.crc32(_SUMMED.pack(len(payload), first_revision)))
    return _RECORD.pack(MARKER, len(payload), first_revision, checksum) + payload


def encode_large_record(first_revision: int, changes: Sequence[Change]) -> bytes:
    """As `encode_record`, for changes of any size and for another thread than that of the event loop.

    No step that keeps the interpreter takes longer than a millisecond for each MiB of JSON, or for a value that is
    bytes. The checksum and the last copy let other threads run.
    """
    pieces = [_list_header(len(changes)), *chain.from_iterable(map(_pieces_of, changes))]
    size = sum(map(len, pieces))
    checksum = zlib.crc32(_SUMMED.pack(size, first_revision))
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
    return b"".join((_RECORD.pack(MARKER, size, first_revision, checksum), *pieces))


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


class Record(msgspec.Struct, frozen=True, gc=False):
    """A batch as read. Its revisions are `first_revision` to `last_revision`, inclusive."""

    offset: int
    first_revision: int
    last_revision: int
    changes: list[Change]


class JournalReader:
    """Reads the bytes of one journal. `name`: the file name, for messages.

    `incarnation` is that of its store, empty in format 1. Raises `unavailable` with the byte offset for corruption.
    After `records` is exhausted, `end` is the end of the valid records, and `torn_bytes` is the number of bytes of an
    incomplete record after it (zeros do not count).
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self.base_revision, self.incarnation, self.end = self._read_header()
        self.torn_bytes = 0

    def records(self) -> Iterator[Record]:
        last_revision = self.base_revision
        while (payload := self._payload_at(self.end)) is not None:
            record = self._decode(self.end, payload)
            last_revision = record.last_revision
            yield record
            self.end += RECORD_HEADER_BYTES + len(payload)
        self._check_tail(last_revision)

    def _read_header(self) -> tuple[int, str, int]:
        """The base revision, the incarnation, and the end of the header."""
        data = self._data
        magic, version = _FORMAT.unpack(data[: _FORMAT.size].ljust(_FORMAT.size))
        header = _HEADERS.get(version, _FORMAT)
        head, checksum = data[: header.size], data[header.size : header.size + _CRC.size]
        if magic != MAGIC or (version in _HEADERS and _CRC.pack(zlib.crc32(head)) != checksum):
            raise self.corrupt(0, "this is not the beginning of a journal")
        if version not in _HEADERS:
            raise self.corrupt(0, f"journal format {version} is of another version of Leasehold")
        _, _, base_revision, *names = header.unpack(head)
        return base_revision, b"".join(names).decode("ascii"), len(head) + len(checksum)

    def _payload_at(self, offset: int) -> memoryview | None:
        """The payload of the record at `offset`, or None if there is no valid one."""
        begin = offset + RECORD_HEADER_BYTES
        if begin > len(self._data):
            return None
        marker, size, first_revision, checksum = _RECORD.unpack_from(self._data, offset)
        if marker != MARKER or begin + size > len(self._data):
            return None
        payload = memoryview(self._data)[begin : begin + size]
        if zlib.crc32(payload, zlib.crc32(_SUMMED.pack(size, first_revision))) != checksum:
            return None
        return payload

    def _first_revision_at(self, offset: int) -> int:
        return int(_RECORD.unpack_from(self._data, offset)[2])

    def _decode(self, offset: int, payload: memoryview) -> Record:
        first_revision = self._first_revision_at(offset)
        try:
            changes: list[Change] = _decode_changes(payload)
        except msgspec.DecodeError as error:
            raise self.corrupt(offset, "the record cannot be decoded") from error
        last_revision = max((change.revision for change in changes), default=0)
        if last_revision < first_revision:
            raise self.corrupt(offset, "the record has no change at its revision")
        return Record(offset, first_revision, last_revision, changes)

    def _check_tail(self, last_revision: int) -> None:
        """After the valid records there may be nothing, zeros, or the torn end of one batch. Else it is corruption."""
        data, end = self._data, self.end
        if data.count(0, end) == len(data) - end:
            return
        position = end
        while (position := data.find(MARKER, position)) >= 0:
            if self._payload_at(position) is not None and self._first_revision_at(position) > last_revision:
                raise self.corrupt(end, f"the record is damaged, but a valid one follows at byte {position}")
            position += 1
        self.torn_bytes = len(data.rstrip(b"\0")) - end

    def gap(self, offset: int, revision: int) -> ServiceError:
        return self.corrupt(offset, f"the record does not follow revision {revision}")

    def corrupt(self, offset: int, reason: str) -> ServiceError:
        return ServiceError("unavailable", f"{self._name} is corrupt at byte {offset}: {reason}; nothing was changed")


class JournalWriter:
    """A journal that this process appends to. Used on the sync thread only.

    Every failure is a WriteError. After it the journal must not be written again if it is `spoiled`. Otherwise the disk
    was full, the partial record has been removed, and the next append may succeed.
    """

    def __init__(self, disk: Disk, file: int, allocated: int, end: int = HEADER_BYTES) -> None:
        self._disk = disk
        self._file = file
        self._allocated = allocated
        self.end = end
        self.spoiled = False

    @classmethod
    def create(
        cls,
        disk: Disk,
        path: Path,
        temporary: Path,
        base_revision: int,
        incarnation: str,
        *,
        before_rename: Callable[[Identity], None] = lambda _: None,
    ) -> "JournalWriter":
        """Create an empty journal at `path`. It gets its name once it is complete, with its first zeros."""
        header = encode_header(base_revision, incarnation)
        zeros = _ZEROS[: FIRST_CHUNK_BYTES - len(header)]
        replace_file(disk, path, temporary, (header, zeros), before_rename=before_rename)
        try:
            file = disk.open(path, writable=True)
        except OSError as error:
            unlink_quietly(disk, path)
            raise WriteError(error, nothing_changed=True) from error
        return cls(disk, file, FIRST_CHUNK_BYTES)

    @classmethod
    def resume(cls, disk: Disk, path: Path, end: int) -> "JournalWriter":
        """Continue the journal of an earlier process. Its records end at `end` and are durable. Raises OSError."""
        file = disk.open(path, writable=True)
        return cls(disk, file, disk.identity_of(file).size, end)

    @property
    def identity(self) -> Identity:
        return self._disk.identity_of(self._file)

    def has_other_writer(self, path: Path) -> bool:
        """Whether another process has appended to the file, which is at `path`. Raises OSError."""
        behind = read_all(self._disk, path)[self.end : self.end + RECORD_HEADER_BYTES]
        return behind.count(0) < len(behind)

    def append(self, record: bytes) -> None:
        """Make a record durable."""
        if self.end + len(record) > self._allocated:
            self._allocate(self.end + len(record))
        try:
            pwrite_all(self._disk, self._file, record, self.end)
        except OSError as error:
            # A restart cuts off an incomplete record.
            failure = WriteError(error, nothing_changed=True)
            self._clean_up(len(record), failure)
            raise failure from error
        try:
            self._disk.fdatasync(self._file)
        except OSError as error:
            self.spoiled = True
            raise WriteError(error, nothing_changed=False) from error
        self.end += len(record)

    def _allocate(self, needed: int) -> None:
        """Write zeros up to `needed` and one more chunk. If the disk is too full for the chunk, only up to `needed`."""
        chunk = max(self._allocated + CHUNK_BYTES, _rounded_up(needed))
        try:
            try:
                self._write_zeros(chunk)
            except OSError as error:
                if not WriteError(error, nothing_changed=True).full or chunk == _rounded_up(needed):
                    raise
                self._disk.truncate(self._file, self._allocated)
                self._write_zeros(_rounded_up(needed))
        except OSError as error:
            failure = WriteError(error, nothing_changed=True)
            self._clean_up(0, failure)
            raise failure from error
        try:
            self._disk.fsync(self._file)
        except OSError as error:
            self.spoiled = True
            raise WriteError(error, nothing_changed=True) from error

    def _write_zeros(self, size: int) -> None:
        position = self._allocated
        while position < size:
            pwrite_all(self._disk, self._file, _ZEROS[: size - position], position)
            position += min(size - position, CHUNK_BYTES)
        self._allocated = size

    def _clean_up(self, record_bytes: int, failure: WriteError) -> None:
        """If the disk was full, remove what was written; the next append syncs this. Other failures are final."""
        if not failure.full:
            self.spoiled = True
            return
        try:
            self._disk.truncate(self._file, self._allocated)
            if record_bytes:
                pwrite_all(self._disk, self._file, bytes(record_bytes), self.end)
        except OSError:
            self.spoiled = True

    def close(self) -> None:
        """Close the file. Its records are already durable."""
        close_quietly(self._disk, self._file)


def _rounded_up(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
