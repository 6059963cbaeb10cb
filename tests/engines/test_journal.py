"""The framing of the journal: which records are read, what is a torn end, and what is corruption."""

import struct
import zlib
from pathlib import Path

import pytest

from leasehold.engines.file.disk import OsDisk, WriteError, read_all
from leasehold.engines.file.journal import (
    FIRST_CHUNK_BYTES,
    HEADER_BYTES,
    JournalReader,
    JournalWriter,
    Record,
    encode_header,
)
from leasehold.engines.file.records import (
    LARGE_CONTENT_BYTES,
    MARKER,
    RECORD_HEADER_BYTES,
    LargeContentError,
    encode_large_record,
    encode_record,
)
from leasehold.errors import ServiceError
from leasehold.model import Binary, Change, Content, Deletion, Entry, Lease, Receipt

FIRST: list[Change] = [Entry("a", b'"x"', 8, 5, 6, 7), Deletion("b", 9)]
SECOND: list[Change] = [Entry("\u00e9", b"[1,2]", 10, 5, 6)]
INCARNATION = "5f3a9c"
HEADER = encode_header(7, INCARNATION)
RECORDS = [encode_record(8, FIRST), encode_record(10, SECOND)]


def read(data: bytes) -> tuple[list[list[Change]], JournalReader]:
    reader = JournalReader(data, "data.json.journal")
    return [record.changes for record in batches(reader)], reader


def batches(reader: JournalReader) -> list[Record]:
    """All records, which must be batches of `default`."""
    records = list(reader.records())
    assert all(isinstance(record, Record) for record in records)
    return [record for record in records if isinstance(record, Record)]


def refusal(data: bytes) -> str:
    with pytest.raises(ServiceError) as caught:
        read(data)
    return caught.value.message


def test_records_are_read_as_they_were_written() -> None:
    reader = JournalReader(HEADER + b"".join(RECORDS), "data.json.journal")
    records = batches(reader)
    assert reader.base_revision == 7
    assert [(record.first_revision, record.last_revision, record.changes) for record in records] == [
        (8, 9, FIRST),
        (10, 10, SECOND),
    ]


@pytest.mark.parametrize("zeros", [0, 1, 3, 5000])
def test_zeros_after_the_records_are_the_normal_end(zeros: int) -> None:
    changes, reader = read(HEADER + b"".join(RECORDS) + bytes(zeros))
    assert (changes, reader.torn_bytes) == ([FIRST, SECOND], 0)
    assert reader.end == len(HEADER) + len(RECORDS[0]) + len(RECORDS[1])


def test_a_record_cut_at_any_byte_is_a_torn_end() -> None:
    for size in range(1, len(RECORDS[1])):
        for zeros in (b"", bytes(100)):
            changes, reader = read(HEADER + RECORDS[0] + RECORDS[1][:size] + zeros)
            assert changes == [FIRST]
            assert reader.end == len(HEADER) + len(RECORDS[0])
            assert 0 < reader.torn_bytes <= size


def test_a_last_record_with_any_damaged_byte_is_a_torn_end() -> None:
    for position in range(len(RECORDS[1])):
        damaged = bytearray(RECORDS[1])
        damaged[position] ^= 0x40
        changes, reader = read(HEADER + RECORDS[0] + bytes(damaged) + bytes(64))
        assert changes == [FIRST]
        assert reader.end == len(HEADER) + len(RECORDS[0])


def test_a_damaged_record_before_a_valid_one_is_corruption_at_its_offset() -> None:
    for position in range(len(RECORDS[0])):
        damaged = bytearray(RECORDS[0])
        damaged[position] ^= 0x40
        message = refusal(HEADER + bytes(damaged) + RECORDS[1] + bytes(64))
        assert f"data.json.journal is corrupt at byte {HEADER_BYTES}" in message


def test_a_blank_page_before_a_valid_record_is_corruption() -> None:
    message = refusal(HEADER + RECORDS[0] + bytes(4096) + RECORDS[1])
    assert f"at byte {len(HEADER) + len(RECORDS[0])}" in message


def test_an_older_record_after_a_torn_one_is_not_corruption() -> None:
    changes, _ = read(HEADER + RECORDS[0] + RECORDS[1][:-1] + RECORDS[0])
    assert changes == [FIRST]


def test_a_marker_without_a_valid_record_is_not_corruption() -> None:
    changes, _ = read(HEADER + RECORDS[0] + b"damage" + MARKER * 3 + b"\x01")
    assert changes == [FIRST]


def test_the_marker_cannot_be_part_of_a_key_or_value() -> None:
    with pytest.raises(UnicodeDecodeError):
        MARKER.decode()


def test_bytes_that_are_a_valid_record_are_not_taken_for_one() -> None:
    """A client may write them. If the record with them is torn, they must not look like the record after it."""
    forged = Content(MARKER + RECORDS[1] * 3)
    changes: list[Change] = [Entry("a", Binary("image/png", forged), 9, 5, 6)]
    record = encode_record(9, changes)
    assert read(HEADER + record)[0] == [changes]
    for size in (len(record) - 1, len(record) - 2):
        assert read(HEADER + record[:size])[0] == []
    found, reader = read(HEADER + bytes(40) + record[40:])
    assert (found, reader.torn_bytes > 0) == ([], True)


def test_a_record_with_bytes_that_are_not_base64_is_corruption() -> None:
    changes: list[Change] = [Entry("a", Binary("image/png", Content(b"abc")), 8, 5, 6)]
    payload = encode_record(8, changes)[RECORD_HEADER_BYTES:]
    assert b"YWJj" in payload
    payload = payload.replace(b"YWJj", b"YW=j")
    checksum = zlib.crc32(payload, zlib.crc32(struct.pack(">IQ", len(payload), 8)))
    record = struct.pack(">4sIQI", MARKER, len(payload), 8, checksum) + payload
    assert "cannot be decoded" in refusal(HEADER + record)


def test_a_large_record_is_the_same_as_a_small_one() -> None:
    changes: list[Change] = [
        *FIRST,
        Entry("image", Binary("image/png", Content(b"abcde" * 100_000)), 10, 5, 6, 7),
        Entry("state", Binary("text/plain; charset=utf-8", Content(b"x" * 60_000)), 11, 5, 6),
        Lease("lock", "secret", 12, 12, 5, 6, 7, "alice", b'"x"'),
        Receipt("digest", b"memo", 12, 5),
        *[Deletion(f"k{number}", 13) for number in range(20)],
    ]
    assert encode_large_record(8, changes) == encode_record(8, changes)
    assert encode_large_record(8, changes[:3]) == encode_record(8, changes[:3])


@pytest.mark.parametrize("size", [LARGE_CONTENT_BYTES + more for more in (1, 2, 3)])
def test_a_record_with_large_bytes_is_encoded_in_pieces(size: int) -> None:
    changes: list[Change] = [Entry("a", Binary("image/png", Content((bytes(range(256)) * 5_000)[:size])), 8, 5, 6)]
    with pytest.raises(LargeContentError):
        encode_record(8, changes)
    assert read(HEADER + encode_large_record(8, changes))[0] == [changes]


@pytest.mark.parametrize(
    "data",
    [b"", HEADER[:-1], b"x" + HEADER[1:], HEADER[:-1] + b"\x00", bytes(5000)],
    ids=["empty", "short", "magic", "checksum", "zeros"],
)
def test_a_file_without_the_header_of_a_journal_is_refused(data: bytes) -> None:
    assert "at byte 0" in refusal(data)


def test_a_record_without_a_change_of_its_revision_is_corruption() -> None:
    assert "has no change" in refusal(HEADER + encode_record(11, FIRST))


def test_a_record_that_is_not_a_list_of_changes_is_corruption() -> None:
    assert "cannot be decoded" in refusal(HEADER + encode_record(8, [(1, 2)]))  # type: ignore[list-item]


# Writing ------------------------------------------------------------------------------------------------------


def create(disk: OsDisk, folder: Path) -> JournalWriter:
    return JournalWriter.create(disk, folder / "journal", folder / "journal.tmp-1", 7, INCARNATION)


def test_a_new_journal_has_a_header_and_zeros_for_the_first_records(tmp_path: Path) -> None:
    create(OsDisk(), tmp_path).close()
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]
    assert (tmp_path / "journal").read_bytes() == HEADER + bytes(FIRST_CHUNK_BYTES - len(HEADER))


def test_appended_records_are_read_back_from_the_file(tmp_path: Path) -> None:
    disk = OsDisk()
    writer = create(disk, tmp_path)
    large = [Entry("large", b'"' + b"x" * FIRST_CHUNK_BYTES + b'"', 11, 1, 1)]
    for record in (*RECORDS, encode_record(11, large)):
        writer.append(record)
    writer.close()
    changes, reader = read(read_all(disk, tmp_path / "journal"))
    assert changes == [FIRST, SECOND, large]
    assert reader.end == writer.end


def test_a_record_that_does_not_fit_on_the_disk_is_removed_from_the_journal(tmp_path: Path) -> None:
    class FullDisk(OsDisk):
        full = False

        def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
            if self.full and any(data):
                written = super().pwrite(file, data[:10], offset)
                self.full = False
                raise_full(written)
            return super().pwrite(file, data, offset)

    disk = FullDisk()
    writer = create(disk, tmp_path)
    writer.append(RECORDS[0])
    before = read_all(disk, tmp_path / "journal")
    disk.full = True
    with pytest.raises(WriteError) as caught:
        writer.append(RECORDS[1])
    assert (caught.value.full, caught.value.nothing_changed, writer.spoiled) == (True, True, False)
    assert read_all(disk, tmp_path / "journal") == before
    writer.append(RECORDS[1])
    writer.close()
    assert read(read_all(disk, tmp_path / "journal"))[0] == [FIRST, SECOND]


def raise_full(_written: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_journal_cannot_be_used_after_a_failed_sync(tmp_path: Path) -> None:
    class UnsyncedDisk(OsDisk):
        def fdatasync(self, file: int) -> None:  # noqa: ARG002
            raise OSError(5, "Input/output error")

    writer = create(UnsyncedDisk(), tmp_path)
    with pytest.raises(WriteError) as caught:
        writer.append(RECORDS[0])
    assert (caught.value.nothing_changed, writer.spoiled) == (False, True)
    writer.close()


def test_a_record_is_written_without_zeros_if_the_disk_has_no_room_for_them(tmp_path: Path) -> None:
    class NearlyFullDisk(OsDisk):
        def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
            if offset + len(data) > FIRST_CHUNK_BYTES + 64 * RECORD_HEADER_BYTES * 1024:
                raise_full(0)
            return super().pwrite(file, data, offset)

    disk = NearlyFullDisk()
    writer = create(disk, tmp_path)
    large = [Entry("large", b'"' + b"x" * FIRST_CHUNK_BYTES + b'"', 8, 1, 1)]
    writer.append(encode_record(8, large))
    writer.close()
    assert read(read_all(disk, tmp_path / "journal"))[0] == [large]
    assert (tmp_path / "journal").stat().st_size < 3 * FIRST_CHUNK_BYTES
