"""What the file engine stores, imports and refuses, in addition to the conformance suite."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from driving import INCARNATION, Driver, FrozenClock, file_driver
from store_files import (
    DATA,
    JOURNAL,
    LATER,
    LOCK,
    OLD_JOURNAL,
    RESERVE,
    TIME,
    document,
    files,
    killed_with_journal,
    lease_line,
    line,
    refusal,
    removal_line,
)

from leasehold.engines import open_engine
from leasehold.engines.file import policy, snapshot
from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.engine import FileEngine
from leasehold.engines.file.journal import (
    HEADER_BYTES,
    JournalReader,
    Record,
    encode_header,
)
from leasehold.engines.file.policy import MAX_ISOLATED_OPERATIONS
from leasehold.engines.file.records import LARGE_CONTENT_BYTES, encode_record
from leasehold.engines.file.recovery import Report, inspect
from leasehold.engines.file.space import FileSpace
from leasehold.engines.memory.engine import MemoryEngine
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, KINDS, LEASE, Binary, Content, Entry
from leasehold.progress import Progress
from leasehold.values.binary import base64_pieces


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    with file_driver(tmp_path) as driver:
        yield driver


# data.json ----------------------------------------------------------------------------------------------------


def test_a_new_store_is_an_empty_document_with_its_incarnation(driver: Driver, tmp_path: Path) -> None:
    driver.run(driver.space.expired(1))
    assert (tmp_path / DATA).read_bytes() == document(0)


def test_single_changes_of_a_small_store_are_written_to_data_json(tmp_path: Path) -> None:
    clock = FrozenClock()
    with file_driver(tmp_path, clock=clock) as driver:
        driver.put("username", b'"alice"')
        driver.put("a", b'{"b":[1,null]}')
        clock.now += 1_499_999
        driver.put("username", b'"bob"', expires_at=clock.now)
        expected = document(
            3,
            line("a", '{"b":[1,null]}', 2),
            f'{{"key":"username","value":"bob","revision":3,"created_at":"{TIME}","updated_at":"{LATER}",'
            f'"expires_at":"{LATER}"}}',
        )
        assert (tmp_path / DATA).read_bytes() == expected
        assert sorted(files(tmp_path)) == [DATA, LOCK, RESERVE]


def test_data_json_is_valid_json_with_and_without_entries(driver: Driver, tmp_path: Path) -> None:
    driver.put('quote"back\\slash/\u00e9\u2028', b"1")
    assert json.loads((tmp_path / DATA).read_text())["entries"][0]["key"] == 'quote"back\\slash/\u00e9\u2028'
    driver.try_commit(('quote"back\\slash/\u00e9\u2028', None), alone=True)
    removed = removal_line('quote\\"back\\\\slash/\u00e9\u2028', 2)
    assert (tmp_path / DATA).read_bytes() == document(2, removals=[removed])
    assert json.loads((tmp_path / DATA).read_text())["entries"] == []


def test_files_are_readable_by_their_owner_only(driver: Driver, tmp_path: Path) -> None:
    driver.put("a")
    driver.commit(("b", b"1"))
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys(
        (DATA, JOURNAL, LOCK, RESERVE), 0o600
    )


def test_an_isolated_batch_of_several_changes_is_written_to_data_json(driver: Driver, tmp_path: Path) -> None:
    """A fenced write changes one entry, and touches its lease too."""
    assert driver.try_commit(("a", b"1"), ("b", b"2"), alone=True) is None
    assert (tmp_path / DATA).read_bytes() == document(2, line("a", "1", 1), line("b", "2", 2))
    assert JOURNAL not in files(tmp_path)


def test_a_batch_of_many_operations_is_not_isolated(driver: Driver, tmp_path: Path) -> None:
    """They come from many writers, and answering them may take longer than the time that makes a write isolated."""
    many = [(f"k{number}", b"1") for number in range(MAX_ISOLATED_OPERATIONS + 1)]
    assert driver.try_commit(*many, alone=True) is None
    assert (tmp_path / DATA).read_bytes() == document(0)
    assert JOURNAL in files(tmp_path)


def test_batches_of_a_busy_lane_are_written_to_the_journal_only(driver: Driver, tmp_path: Path) -> None:
    driver.commit(("a", b"1"), ("b", b"2"))
    assert (tmp_path / DATA).read_bytes() == document(0)
    reader = JournalReader((tmp_path / JOURNAL).read_bytes(), JOURNAL)
    [record] = reader.records()
    assert isinstance(record, Record)
    assert [change.name for change in record.changes] == ["a", "b"]


def test_a_store_over_256_kib_uses_the_journal_for_single_changes_too(driver: Driver, tmp_path: Path) -> None:
    driver.put("small")
    before = (tmp_path / DATA).read_bytes()
    driver.put("large", b'"' + b"x" * 256 * 1024 + b'"')
    assert (tmp_path / DATA).read_bytes() == before
    assert JOURNAL in files(tmp_path)


def test_everything_is_in_data_json_after_a_normal_stop(tmp_path: Path) -> None:
    with file_driver(tmp_path) as driver:
        driver.commit(("a", b"1"))
    assert sorted(files(tmp_path)) == [DATA, LOCK, RESERVE]
    assert (tmp_path / DATA).read_bytes() == document(1, line("a", "1", 1))


def test_an_idle_small_store_is_moved_from_the_journal_to_data_json(tmp_path: Path) -> None:
    (tmp_path / DATA).write_bytes(document(0))
    driver = Driver(FileEngine(tmp_path / DATA, clock=FrozenClock(), idle_seconds=0).space())
    with driver:
        driver.commit(("a", b"1"))
        engine = driver.space
        assert isinstance(engine, FileSpace)
        driver.run(engine.volume.checkpoint())
        assert (tmp_path / DATA).read_bytes() == document(1, line("a", "1", 1))
        assert JOURNAL not in files(tmp_path)


def test_an_isolated_change_after_a_run_is_in_data_json_with_the_whole_run(driver: Driver, tmp_path: Path) -> None:
    driver.commit(("a", b"1"))
    driver.commit(("a", b"2"))
    driver.put("b", b"3")
    assert (tmp_path / DATA).read_bytes() == document(3, line("a", "2", 2), line("b", "3", 3))


def test_a_run_of_changes_is_brought_to_data_json_while_it_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "STALE_SECONDS", 0.0)
    with file_driver(tmp_path) as driver:
        driver.commit(("a", b"1"))
        look_at_journal(driver, commits_since=1)
        assert (tmp_path / DATA).read_bytes() == document(1, line("a", "1", 1))
        journal = (tmp_path / JOURNAL).stat().st_ino
        driver.commit(("b", b"2"))
        assert (tmp_path / DATA).read_bytes() == document(1, line("a", "1", 1))
        assert (tmp_path / JOURNAL).stat().st_ino == journal
        driver.kill()
    with file_driver(tmp_path) as driver:
        assert driver.values() == {"a": b"1", "b": b"2"}


def test_data_json_is_not_written_again_and_again_during_a_run(driver: Driver, tmp_path: Path) -> None:
    driver.commit(("a", b"1"))
    look_at_journal(driver, commits_since=1)
    assert (tmp_path / DATA).read_bytes() == document(0)


def test_the_journal_is_removed_after_a_run_even_if_data_json_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "STALE_SECONDS", 0.0)
    with file_driver(tmp_path) as driver:
        driver.commit(("a", b"1"))
        look_at_journal(driver, commits_since=1)
        look_at_journal(driver, commits_since=0)
        assert (tmp_path / DATA).read_bytes() == document(1, line("a", "1", 1))
        assert sorted(files(tmp_path)) == [DATA, LOCK, RESERVE]


def look_at_journal(driver: Driver, *, commits_since: int) -> None:
    """What the timer of the engine does when it runs out, and its consequences."""
    space = driver.space
    assert isinstance(space, FileSpace)

    async def look() -> None:
        space.volume.after_idle_time(space.volume.commits - commits_since)
        await space.volume.rest()

    driver.run(look())


def test_an_isolated_change_during_a_checkpoint_is_in_data_json_when_it_is_answered(tmp_path: Path) -> None:
    class SlowDisk(OsDisk):
        """The next `data.json` waits before its rename, until `go`."""

        is_slow = False
        reached = threading.Event()
        go = threading.Event()

        def rename(self, source: Path, target: Path) -> None:
            if target.name == DATA and self.is_slow:
                self.is_slow = False
                self.reached.set()
                assert self.go.wait(60)
            super().rename(source, target)

    with file_driver(tmp_path, disk=(disk := SlowDisk())) as driver:
        space = driver.space
        assert isinstance(space, FileSpace)
        driver.commit(("a", b"1"))
        disk.is_slow = True

        async def begin() -> asyncio.Task[None]:
            checkpoint = asyncio.create_task(space.volume.checkpoint())
            assert await asyncio.to_thread(disk.reached.wait, 60)
            return checkpoint

        checkpoint = driver.run(begin())
        threading.Timer(0.05, disk.go.set).start()
        driver.put("b", b"2")
        assert (tmp_path / DATA).read_bytes() == document(2, line("a", "1", 1), line("b", "2", 2))

        async def finish() -> None:
            async with asyncio.timeout(60):
                await checkpoint

        driver.run(finish())
        assert (tmp_path / DATA).read_bytes() == document(2, line("a", "1", 1), line("b", "2", 2))


def test_large_bytes_are_encoded_by_the_thread_that_writes_them(tmp_path: Path) -> None:
    threads: list[str] = []

    def encode(data: bytes) -> Iterator[bytes]:
        threads.append(threading.current_thread().name)
        yield from base64_pieces(data)

    value = Binary("text/plain", Content(b"x" * (LARGE_CONTENT_BYTES + 1)))
    with (
        patch("leasehold.engines.file.records.base64_pieces", encode),
        patch("leasehold.values.binary.base64_pieces", encode),
        file_driver(tmp_path) as driver,
    ):
        driver.put("a", value)
        driver.commit(("a", value), ("b", b"1"))
        assert threads == ["leasehold-sync"] * 2
    assert "MainThread" not in threads
    with file_driver(tmp_path) as driver:
        assert [driver.value(key) for key in ("a", "b")] == [value, b"1"]


def test_a_large_change_for_which_memory_runs_out_is_not_stored(tmp_path: Path) -> None:
    value = Binary("text/plain", Content(b"x" * (LARGE_CONTENT_BYTES + 1)))
    with file_driver(tmp_path) as driver:
        driver.put("a", b"1")
        with patch("leasehold.engines.file.records.base64_pieces", side_effect=MemoryError):
            refused = driver.try_commit(("a", value))
        assert refused is not None
        assert (refused.code, refused.is_outcome_unknown) == ("unavailable", False)
        driver.commit(("b", value))
        assert [driver.value(key) for key in ("a", "b")] == [b"1", value]


# Start --------------------------------------------------------------------------------------------------------


def test_the_journal_of_a_killed_process_is_replayed_and_moved_to_data_json(tmp_path: Path) -> None:
    killed_with_journal(tmp_path, [("a", b"1"), ("b", b"2")], [("a", None), ("c", b"3")])
    with file_driver(tmp_path) as driver:
        assert (driver.space.revision, driver.values()) == (4, {"b": b"2", "c": b"3"})
        lines = line("b", "2", 2), line("c", "3", 4)
        assert (tmp_path / DATA).read_bytes() == document(4, *lines, removals=[removal_line("a", 3)])
        assert JOURNAL not in files(tmp_path)


def test_a_start_reads_snapshots_and_journal_records_in_any_order(tmp_path: Path) -> None:
    """Each start reads the same entries, at whatever step the process was killed."""
    expected: dict[str, bytes] = {}
    for number in range(12):
        driver = file_driver(tmp_path).__enter__()
        assert driver.values() == expected
        for step in range(number):
            key, value = f"k{step % 3}", b"%d" % (100 * number + step)
            if (number + step) % 3:
                driver.commit((key, value))
            else:
                driver.put(key, value)
            expected[key] = value
        driver.kill()


def test_a_large_store_is_opened_before_its_checkpoint_is_done(tmp_path: Path) -> None:
    large = b'"' + b"x" * 300_000 + b'"'
    killed_with_journal(tmp_path, [("large", large)], [("a", b"1")])
    with file_driver(tmp_path) as driver:
        assert driver.values() == {"large": large, "a": b"1"}
        driver.commit(("b", b"2"))
        driver.kill()
    with file_driver(tmp_path) as driver:
        assert driver.values() == {"large": large, "a": b"1", "b": b"2"}


def test_a_torn_end_of_a_journal_is_cut_off(tmp_path: Path) -> None:
    killed_with_journal(tmp_path, [("a", b"1")])
    path = tmp_path / JOURNAL
    torn = encode_record(2, [Entry("b", b"2", 2, 1, 1)])[:-3]
    end = HEADER_BYTES + len(encode_record(1, [Entry("a", b"1", 1, FrozenClock().now, FrozenClock().now)]))
    path.write_bytes(path.read_bytes()[:end] + torn)
    assert inspect(tmp_path / DATA, OsDisk()).torn_bytes == len(torn)
    with file_driver(tmp_path) as driver:
        assert driver.values() == {"a": b"1"}
        driver.commit(("c", b"3"))
        driver.kill()
    with file_driver(tmp_path) as driver:
        assert driver.values() == {"a": b"1", "c": b"3"}


def test_a_damaged_record_before_a_valid_one_is_refused(tmp_path: Path) -> None:
    killed_with_journal(tmp_path, [("a", b"1")], [("b", b"2")])
    path = tmp_path / JOURNAL
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 25] ^= 1
    path.write_bytes(data)
    assert f"{JOURNAL} is corrupt at byte {HEADER_BYTES}" in refusal(tmp_path)


def test_a_missing_data_json_beside_its_journal_is_refused(tmp_path: Path) -> None:
    driver = file_driver(tmp_path).__enter__()
    driver.put("a")
    driver.commit(("b", b"2"))
    driver.kill()
    (tmp_path / DATA).unlink()
    assert refusal(tmp_path) == (
        f"{JOURNAL} begins after revision 1, but {DATA} is missing or empty: put back the {DATA} that was there, "
        f"or, to go back to this one, move {OLD_JOURNAL} and {JOURNAL} away; nothing was changed"
    )


def test_an_old_data_json_beside_newer_journals_is_refused_with_the_files_to_move(tmp_path: Path) -> None:
    driver = file_driver(tmp_path).__enter__()
    driver.put("a")
    backup = (tmp_path / DATA).read_bytes()
    driver.put("a", b"2")
    driver.commit(("b", b"3"))
    driver.kill()
    (tmp_path / JOURNAL).rename(tmp_path / OLD_JOURNAL)
    (tmp_path / DATA).write_bytes(backup)
    assert refusal(tmp_path) == (
        f"{OLD_JOURNAL} begins after revision 2, but {DATA} ends at revision 1: put back the {DATA} that was there, "
        f"or, to go back to this one, move {OLD_JOURNAL} and {JOURNAL} away; nothing was changed"
    )
    (tmp_path / OLD_JOURNAL).unlink()
    with file_driver(tmp_path) as driver:
        assert driver.values() == {"a": b"1"}


def test_a_gap_in_the_revisions_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATA).write_bytes(document(3, line("a", "1", 3)))
    records = encode_record(4, [Entry("b", b"2", 4, 1, 1)]), encode_record(6, [Entry("c", b"2", 6, 1, 1)])
    (tmp_path / JOURNAL).write_bytes(encode_header(3, INCARNATION) + b"".join(records))
    assert f"corrupt at byte {HEADER_BYTES + len(records[0])}" in refusal(tmp_path)


def test_journal_records_that_are_in_the_snapshot_are_skipped(tmp_path: Path) -> None:
    (tmp_path / DATA).write_bytes(document(5, line("a", "5", 5)))
    records = encode_record(4, [Entry("a", b"4", 4, 1, 1)]), encode_record(6, [Entry("b", b"6", 6, 1, 1)])
    (tmp_path / JOURNAL).write_bytes(encode_header(3, INCARNATION) + b"".join(records))
    with file_driver(tmp_path) as driver:
        assert driver.values() == {"a": b"5", "b": b"6"}


def test_the_time_after_a_start_is_not_earlier_than_the_latest_stored_time(tmp_path: Path) -> None:
    far = "2999-01-01T00:00:00.000000Z"
    (tmp_path / DATA).write_bytes(document(1, line("a", "1", 1).replace(TIME, far)))
    with Driver(FileEngine(tmp_path / DATA).space()) as driver:
        driver.put("b")
        entries = driver.run(driver.space.scan(ENTRY, "", None, 2)).records
        assert entries[1].created_at >= entries[0].created_at


def test_only_the_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    for name in ("data.json.tmp-3", "data.json.journal.tmp-1", "data.json.reserve.tmp-22"):
        (tmp_path / name).write_bytes(b"left behind")
    others = {"data.json.tmp-", "data.json.bak", "data.json.tmp-1x", "other.json.tmp-1"}
    for name in others:
        (tmp_path / name).write_bytes(b"of somebody")
    with file_driver(tmp_path):
        pass
    assert {name for name in files(tmp_path) if name not in (DATA, LOCK, RESERVE)} == others


def test_missing_permission_is_refused_in_one_line(tmp_path: Path) -> None:
    class ForbiddenDisk(OsDisk):
        def lock(self, path: Path) -> int:
            raise PermissionError(13, "Permission denied", str(path))

    with pytest.raises(ServiceError) as caught, file_driver(tmp_path, disk=ForbiddenDisk()):
        pass
    assert caught.value.message == "data.json.lock cannot be locked: Permission denied"


def test_temporary_files_are_not_removed_if_the_start_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATA).write_bytes(b"")
    (tmp_path / "data.json.tmp-1").write_bytes(b"left behind")
    assert refusal(tmp_path)


def test_a_missing_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as caught, file_driver(tmp_path / "missing"):
        pass
    assert caught.value.message == f"data.json cannot be opened: there is no folder {tmp_path / 'missing'}"


# Files of other programs --------------------------------------------------------------------------------------


def test_a_plain_object_of_another_tool_is_imported(tmp_path: Path) -> None:
    (tmp_path / DATA).write_bytes(b'{\n  "username": "alice",\n  "age": { "years" : 30 },\n  "age": 31\n}')
    with file_driver(tmp_path) as driver:
        assert (driver.space.revision, driver.values()) == (2, {"age": b"31", "username": b'"alice"'})
        lines = line("age", "31", 1), line("username", '"alice"', 2)
        assert (tmp_path / DATA).read_bytes() == document(2, *lines, compacted=2)


def test_an_empty_object_is_an_empty_store(tmp_path: Path) -> None:
    (tmp_path / DATA).write_bytes(b"{}")
    with file_driver(tmp_path) as driver:
        assert driver.values() == {}
        assert (tmp_path / DATA).read_bytes() == document(0).replace(b"\n\n", b"\n")


def test_a_document_of_leasehold_in_another_layout_is_accepted(tmp_path: Path) -> None:
    pretty = json.dumps(json.loads(document(7, line("b", '{"c": 1}', 7), line("a", "2", 3))), indent=4)
    (tmp_path / DATA).write_text(pretty)
    with file_driver(tmp_path) as driver:
        assert (driver.space.revision, driver.values()) == (7, {"a": b"2", "b": b'{"c":1}'})


NOT_AS_WRITTEN = 'line 2: entry "a": it is not as Leasehold writes it'


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b'{"a": 1', "it is not a JSON object"),
        (b"[]", "it is not a JSON object"),
        (b'"text"', "it is not a JSON object"),
        (b'{"a": 1} {}', "it is not a JSON object"),
        (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
        (b'{"\xff": 1}', "it is not a JSON object"),
        (b"\x00" * 4096, "it is not a JSON object"),
        (b'{"a/../b": 1}', "entry 'a/../b'"),
        (b'{"": 1}', "entry ''"),
        (b'{"a": "\\u0000"}', "entry 'a'"),
        (b'{"a": 1e999}', "entry 'a'"),
        (document(3, line("a", "1", 1), line("b", "1", 2))[:-150], "it is not a JSON object"),
        (document(3, line("a", "1", 1))[:30], "it is not a JSON object"),
        (document(3, line("a", "1", 1)) + b"x", "line 4: it is not a JSON object"),
        (document(3, line("a", "1", 1), line("a", "2", 2)), "line 3: entry 'a' occurs twice"),
        (document(3, line("a", "1", 4)), "line 2: entry 'a' has a revision greater than that of the store"),
        (document(3, line("a", "nul", 1)), "line 2: it is not a JSON object"),
        (document(3, line("a", "1", -1)), NOT_AS_WRITTEN),
        (
            document(3, line("a", "1", 1).replace(TIME, "2026-13-31T12:00:00.000001Z")),
            'line 2: entry "a": it is not as Leasehold writes it',
        ),
        (
            document(3, line("a", "1", 1).replace(TIME, "yesterday")),
            'line 2: entry "a": it is not as Leasehold writes it',
        ),
        (
            document(3, line("a", "1", 1).replace("revision", "version")),
            'line 2: entry "a": it is not as Leasehold writes it',
        ),
        (document(3, line("a", "1", 1)).replace(b'sehold": 1', b'sehold": 2'), "another version"),
        (b'{"leasehold": 1, "revision": 1, "entries": [], "watches": []}', "not as Leasehold writes it"),
        (document(9, leases=[lease_line("l", 3), lease_line("l", 4)]), "line 4: lease 'l' occurs twice"),
        (
            document(9, leases=[lease_line("l", 3), lease_line("m", 4).replace("id-of-m", "id-of-l")]),
            "line 4: lease 'm' has the lease_id of another lease",
        ),
        (document(9, leases=[lease_line("l", 10)]), "line 3: lease 'l' has a revision greater than that of the store"),
        (document(9, leases=[lease_line("l", 3).replace("token", "ticket")]), 'line 3: lease "l": it is not as'),
        (b'{"leasehold": 1, "revision": "1", "entries": []}', "revision is not a number"),
    ],
)
def test_an_incorrect_file_is_refused_and_not_changed(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / DATA).write_bytes(data)
    assert reason in refusal(tmp_path)


def test_a_plain_object_beside_a_journal_is_refused(tmp_path: Path) -> None:
    killed_with_journal(tmp_path, [("a", b"1")])
    (tmp_path / DATA).write_bytes(b'{"a": 2}')
    assert "move one of them away" in refusal(tmp_path)


def test_leases_are_read_and_written_in_the_same_layout(tmp_path: Path) -> None:
    text = document(9, line("a", "1", 1), leases=[lease_line("l", 3), lease_line("m", 4)])
    (tmp_path / DATA).write_bytes(text)
    with file_driver(tmp_path) as driver:
        leases = driver.run(driver.space.scan(LEASE, "", None, 10)).records
        assert [(lease.lock, lease.token, lease.owner) for lease in leases] == [
            ("l", 3, b'{"n":1}'),
            ("m", 4, b'{"n":1}'),
        ]
    assert (tmp_path / DATA).read_bytes() == text


def test_leases_in_a_file_of_another_layout_are_accepted(tmp_path: Path) -> None:
    text = document(9, line("a", "1", 1), leases=[lease_line("l", 3)])
    (tmp_path / DATA).write_bytes(json.dumps(json.loads(text), indent=2).encode())
    with file_driver(tmp_path) as driver:
        lease = driver.read_lease("l")
        assert lease is not None
        assert (lease.lease_id, lease.token, lease.owner) == ("id-of-l", 3, b'{"n":1}')


def test_many_leases_are_read_across_blocks(tmp_path: Path) -> None:
    locks = [f"l{number:05d}" for number in range(4_000)]
    (tmp_path / DATA).write_bytes(
        document(9_000, line("a", "1", 1), leases=[lease_line(lock, 100 + n) for n, lock in enumerate(locks)])
    )
    with file_driver(tmp_path) as driver:
        assert [lease.lock for lease in driver.run(driver.space.scan(LEASE, "", None, 10_000)).records] == locks


def test_a_large_file_is_read_across_its_blocks(tmp_path: Path) -> None:
    values = {f"k{number:05d}": b'"' + b"x" * (number % 700) + b'"' for number in range(5000)}
    with file_driver(tmp_path) as driver:
        driver.commit(*values.items())
    assert (tmp_path / DATA).stat().st_size > 3 * 512 * 1024
    assert len((tmp_path / DATA).read_bytes().splitlines()) == 5002
    with file_driver(tmp_path) as driver:
        assert driver.values() == values


def test_lines_are_found_wherever_a_block_ends(tmp_path: Path) -> None:
    entries = {"a": line("a", "1", 1), "b": line("b", f'"{"x," * 100}"', 2), "c": line("c", "2", 3)}
    (tmp_path / DATA).write_bytes(document(3, *entries.values()))
    for block_bytes in range(1, 400):
        with patch.object(snapshot, "BLOCK_BYTES", block_bytes), (tmp_path / DATA).open("rb") as file:
            state = snapshot.read_lines(OsDisk(), file.fileno(), KINDS, Progress())
        assert [each.revision for each in state.of(ENTRY).by_name.values()] == [1, 2, 3], block_bytes


# Ownership ----------------------------------------------------------------------------------------------------


def test_a_second_process_on_the_same_files_is_refused_in_one_line(driver: Driver, tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as caught, file_driver(tmp_path):
        pass
    assert (caught.value.code, caught.value.message) == ("unavailable", "data.json is in use by another process")


def test_a_store_can_be_opened_after_a_refused_start(tmp_path: Path) -> None:
    (tmp_path / DATA).write_bytes(b"")
    assert refusal(tmp_path)
    (tmp_path / DATA).unlink()
    with file_driver(tmp_path) as driver:
        driver.put("a")


def test_a_link_to_a_store_is_the_same_store(driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / DATA).symlink_to(tmp_path / DATA)
    with pytest.raises(ServiceError, match="in use"), file_driver(tmp_path / "folder"):
        pass


# Checkpoints --------------------------------------------------------------------------------------------------


def test_a_checkpoint_removes_the_journal_and_keeps_all_entries(tmp_path: Path) -> None:
    driver = file_driver(tmp_path).__enter__()
    engine = driver.space
    assert isinstance(engine, FileSpace)
    driver.commit(("a", b"1"), ("b", b"2"))
    driver.run(engine.volume.checkpoint())
    assert sorted(files(tmp_path)) == [DATA, LOCK, RESERVE]
    driver.commit(("c", b"3"))
    driver.kill()
    with file_driver(tmp_path) as driver:
        assert driver.values() == {"a": b"1", "b": b"2", "c": b"3"}


def test_a_checkpoint_starts_when_the_journal_is_larger_than_the_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leasehold.engines.file.policy.MIN_JOURNAL_BYTES", 2000)
    with file_driver(tmp_path) as driver:
        engine = driver.space
        assert isinstance(engine, FileSpace)
        for number in range(30):
            driver.commit(("a", b'"' + b"x" * 200 + b'"'), ("b", b"%d" % number))
        driver.run(engine.volume.rest())
        snapshot = inspect_copy(tmp_path)
        assert snapshot.snapshot_revision > 0
        assert snapshot.revision == 60
        assert (tmp_path / JOURNAL).exists()
        assert not (tmp_path / OLD_JOURNAL).exists()


def inspect_copy(folder: Path) -> Report:
    """`inspect` of the files as they are now, though they are in use."""
    copy = folder / "copy"
    copy.mkdir()
    for name, data in files_only(folder).items():
        (copy / name).write_bytes(data)
    return inspect(copy / DATA, OsDisk())


def files_only(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("cut", ["rename", "create", "replace", "unlink"])
def test_a_start_finds_everything_after_a_checkpoint_was_killed_at_any_step(tmp_path: Path, cut: str) -> None:
    """The process ends right before the named step, and again during the checkpoint that its next start makes."""

    class CutDisk(OsDisk):
        armed = False

        def _step(self, name: str) -> None:
            if self.armed and name == cut:
                raise SystemError("cut")

        def create(self, path: Path) -> int:
            self._step("create")
            return super().create(path)

        def rename(self, source: Path, target: Path) -> None:
            self._step("replace" if target.name == DATA else "rename")
            super().rename(source, target)

        def unlink(self, path: Path) -> None:
            self._step("unlink")
            super().unlink(path)

    large = b'"' + b"x" * 300_000 + b'"'
    expected = {"large": large, "a": b"1"}
    driver = file_driver(tmp_path, disk=(disk := CutDisk())).__enter__()
    engine = driver.space
    assert isinstance(engine, FileSpace)
    driver.commit(*expected.items())
    driver.run(engine.volume.rest())
    disk.armed = True
    driver.run(engine.volume.checkpoint())
    disk.armed = False
    driver.kill()
    for number in range(3):
        driver = file_driver(tmp_path).__enter__()
        assert driver.values() == expected
        driver.commit((f"more{number}", b"1"))
        expected[f"more{number}"] = b"1"
        driver.kill()


# check --------------------------------------------------------------------------------------------------------


def test_a_check_reports_what_a_start_would_find_and_changes_nothing(tmp_path: Path) -> None:
    driver = file_driver(tmp_path).__enter__()
    driver.put("a")
    driver.commit(("b", b"2"), ("c", b"3"))
    driver.commit(("a", None))
    driver.kill()
    before = files(tmp_path)
    report = inspect(tmp_path / DATA, OsDisk())
    assert (report.revision, report.counts["entries"], report.snapshot_revision) == (4, 2, 1)
    assert (report.journal_records, report.torn_bytes, report.foreign) == (2, 0, False)
    assert files(tmp_path) == before


def test_a_check_of_a_store_in_use_is_refused(driver: Driver, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"data\.json is in use by another process"):
        inspect(tmp_path / DATA, OsDisk())


def test_a_check_of_a_file_of_another_tool_creates_no_lock_file(tmp_path: Path) -> None:
    (tmp_path / DATA).write_bytes(b'{"a": 1}')
    assert inspect(tmp_path / DATA, OsDisk()).foreign
    assert sorted(files(tmp_path)) == [DATA]


# open_engine --------------------------------------------------------------------------------------------------


def test_the_store_is_chosen_by_its_url(tmp_path: Path) -> None:
    assert isinstance(open_engine("memory:"), MemoryEngine)
    for url in (str(tmp_path / DATA), f"file:{tmp_path / DATA}", f"file://{tmp_path / DATA}"):
        with Driver(open_engine(url).space()) as driver:
            driver.put("a")
        assert (tmp_path / DATA).exists()


@pytest.mark.parametrize("url", ["", "redis://localhost"])
def test_an_unknown_store_url_is_refused(url: str) -> None:
    with pytest.raises(ServiceError) as caught:
        open_engine(url)
    assert caught.value.code == "invalid_argument"
