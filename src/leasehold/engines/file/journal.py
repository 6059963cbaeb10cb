"""The journal: committed batches in order, each in one record with a checksum.

    file    = header, record, record, …, zeros
    header  = magic (8), format (4), base revision (8), incarnation of the store (6), CRC-32 of these (4)
    record  = marker (4), payload length (4), first revision (8), CRC-32 of length, revision and payload (4), payload
    payload = MessagePack: the changes of one batch, whole entries and leases, in the order of their revisions.
              A value that is bytes is base64.

This is the payload of a batch of `default`. One of another namespace has its change number (`namespaces`) instead of
the first revision, and its payload is a map with one member: `"log/namespace"` with the changes of a batch, or with the
head of the namespace after an event. If several of them are written with one sync, they share one record, so that after
a power cut all of them or none are there: its payload is the byte C1, and then for each the payload length (4), first
revision or number (8), payload.

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

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
from leasehold.engines.file.namespaces import Head
from leasehold.engines.file.records import (
    GROUP,
    MARKER,
    NAMED,
    RECORD,
    RECORD_HEADER_BYTES,
    SUMMED,
    decode_changes,
    decode_named,
)
from leasehold.errors import ServiceError
from leasehold.limits import KIB, MIB
from leasehold.model import Change

MAGIC: Final = b"\x89LSHOLD\n"
FORMAT: Final = 2
FIRST_CHUNK_BYTES: Final = 256 * KIB
CHUNK_BYTES: Final = 4 * MIB
_BLOCK_BYTES: Final = 4 * KIB
_ZEROS: Final = bytes(CHUNK_BYTES)

_HEADER: Final = struct.Struct(">8sIQ6s")
_HEADERS: Final = {1: struct.Struct(">8sIQ"), FORMAT: _HEADER}
_FORMAT: Final = struct.Struct(">8sI")
_CRC: Final = struct.Struct(">I")
HEADER_BYTES: Final = _HEADER.size + _CRC.size


def encode_header(base_revision: int, incarnation: str) -> bytes:
    head = _HEADER.pack(MAGIC, FORMAT, base_revision, incarnation.encode("ascii"))
    return head + _CRC.pack(zlib.crc32(head))


class Record(msgspec.Struct, frozen=True, gc=False):
    """A batch of `default` as read. Its revisions are `first_revision` to `last_revision`, inclusive."""

    offset: int
    first_revision: int
    last_revision: int
    changes: list[Change]


class NamedRecord(msgspec.Struct, frozen=True, gc=False):
    """A batch, or an event, of another namespace as read. `sequence` is its number in `log`."""

    offset: int
    sequence: int
    log: str
    namespace: str
    content: list[Change] | Head


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

    def records(self) -> Iterator[Record | NamedRecord]:
        last_revision, last_sequence = self.base_revision, 0
        while (payload := self._payload_at(self.end)) is not None:
            for number, each in self._batches_in(payload):
                record = self._decode(self.end, number, each)
                if isinstance(record, Record):
                    last_revision = record.last_revision
                else:
                    last_sequence = record.sequence
                yield record
            self.end += RECORD_HEADER_BYTES + len(payload)
        self._check_tail(last_revision, last_sequence)

    def _batches_in(self, payload: memoryview) -> Iterator[tuple[int, memoryview]]:
        """The batches in a record, with their numbers."""
        if payload[:1] != bytes((GROUP,)):
            yield self._number_at(self.end), payload
            return
        position = 1
        while position < len(payload):
            size, number = SUMMED.unpack_from(payload, position)
            position += SUMMED.size
            yield number, payload[position : position + size]
            position += size

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
        marker, size, first_revision, checksum = RECORD.unpack_from(self._data, offset)
        if marker != MARKER or begin + size > len(self._data):
            return None
        payload = memoryview(self._data)[begin : begin + size]
        if zlib.crc32(payload, zlib.crc32(SUMMED.pack(size, first_revision))) != checksum:
            return None
        return payload

    def _number_at(self, offset: int) -> int:
        return int(RECORD.unpack_from(self._data, offset)[2])

    def _decode(self, offset: int, number: int, payload: memoryview) -> Record | NamedRecord:
        is_named = payload[:1] == bytes((NAMED,))
        try:
            if is_named:
                [(name, content)] = decode_named(payload).items()
                log, _, namespace = name.partition("/")
                return NamedRecord(offset, number, log, namespace, content)
            changes: list[Change] = decode_changes(payload)
        except msgspec.DecodeError as error:
            raise self.corrupt(offset, "the record cannot be decoded") from error
        last_revision = max((change.revision for change in changes), default=0)
        if last_revision < number:
            raise self.corrupt(offset, "the record has no change at its revision")
        return Record(offset, number, last_revision, changes)

    def _check_tail(self, last_revision: int, last_sequence: int) -> None:
        """After the valid records there may be nothing, zeros, or the torn end of one batch. Else it is corruption."""
        data, end = self._data, self.end
        if data.count(0, end) == len(data) - end:
            return
        last = {GROUP: -1, NAMED: last_sequence}
        position = end
        while (position := data.find(MARKER, position)) >= 0:
            payload = self._payload_at(position)
            if payload and self._number_at(position) > last.get(payload[0], last_revision):
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
