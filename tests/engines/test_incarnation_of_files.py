"""The incarnation in the files: when it is created and kept, and when different ones are refused.

`files_of_0_1_0` holds what version 0.1.0 wrote, which had none: copies of its files at four moments.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import INCARNATION, FrozenClock, file_driver

from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.journal import HEADER_BYTES, JournalReader
from leasehold.engines.file.recovery import inspect
from leasehold.engines.memory.space import MemorySpace
from leasehold.errors import ServiceError
from leasehold.times import parse_time

DATA, JOURNAL, OLD_JOURNAL, LOCK = "data.json", "data.json.journal", "data.json.journal.old", "data.json.lock"
ANOTHER = "0d15ea"
FILES_OF_0_1_0 = Path(__file__).parent / "files_of_0_1_0"
WRITTEN_AT = parse_time("2026-11-28T04:45:20.000000Z")


def written_incarnation(folder: Path) -> object:
    return json.loads((folder / DATA).read_text())["incarnation"]


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK}


def refusal(folder: Path) -> str:
    with pytest.raises(ServiceError) as caught, file_driver(folder):
        pass
    with pytest.raises(ServiceError) as checked:
        inspect(folder / DATA, OsDisk())
    assert checked.value.message == caught.value.message
    return caught.value.message


def kill_with_a_journal(folder: Path, *keys: str) -> None:
    driver = file_driver(folder).__enter__()
    for key in keys:
        driver.commit((key, b"1"))
    driver.kill()


def rename_store(folder: Path, incarnation: str) -> None:
    data = folder / DATA
    data.write_text(data.read_text().replace(INCARNATION, incarnation))


# Created and kept ---------------------------------------------------------------------------------------------


def test_the_incarnation_is_on_the_disk_once_the_store_is_open(tmp_path: Path) -> None:
    driver = file_driver(tmp_path).__enter__()
    assert driver.space.incarnation == INCARNATION == written_incarnation(tmp_path)
    driver.kill()


def test_the_incarnation_does_not_change_with_writes_checkpoints_and_starts(tmp_path: Path) -> None:
    with file_driver(tmp_path):
        pass
    rename_store(tmp_path, ANOTHER)
    for key in ("a", "b", "c"):
        kill_with_a_journal(tmp_path, key)
        assert JournalReader((tmp_path / JOURNAL).read_bytes(), JOURNAL).incarnation == ANOTHER
        with file_driver(tmp_path) as driver:
            assert driver.space.incarnation == ANOTHER
            driver.put("quiet")
    assert written_incarnation(tmp_path) == ANOTHER


def test_the_incarnation_is_kept_if_an_editor_changes_the_layout_of_the_document(tmp_path: Path) -> None:
    with file_driver(tmp_path) as driver:
        driver.put("a")
    rename_store(tmp_path, ANOTHER)
    (tmp_path / DATA).write_text(json.dumps(json.loads((tmp_path / DATA).read_text()), indent=4))
    with file_driver(tmp_path) as driver:
        assert driver.space.incarnation == ANOTHER


@pytest.mark.parametrize("wrong", ["5F3A9C", "5f3a9", "5f3a9c0", "xyz123"])
def test_an_invalid_incarnation_is_refused(wrong: str, tmp_path: Path) -> None:
    (tmp_path / DATA).write_text(f'{{"leasehold": 1, "incarnation": "{wrong}", "revision": 0, "entries": [\n]}}\n')
    assert "data.json cannot be used" in refusal(tmp_path)


def test_an_imported_file_of_another_tool_gets_an_incarnation(tmp_path: Path) -> None:
    (tmp_path / DATA).write_text('{"username": "alice"}')
    with file_driver(tmp_path) as driver:
        assert driver.space.incarnation == INCARNATION == written_incarnation(tmp_path)


def test_two_stores_in_memory_have_different_incarnations() -> None:
    assert MemorySpace().incarnation != MemorySpace().incarnation


def test_a_store_without_data_json_keeps_the_incarnation_of_its_journal(tmp_path: Path) -> None:
    with file_driver(tmp_path):
        pass
    rename_store(tmp_path, ANOTHER)
    kill_with_a_journal(tmp_path, "a")
    (tmp_path / DATA).unlink()
    with file_driver(tmp_path) as driver:
        assert (driver.space.incarnation, driver.values()) == (ANOTHER, {"a": b"1"})


# Files of two stores ------------------------------------------------------------------------------------------


def two_stores(folder: Path) -> None:
    """`data.json` and a journal of another store whose revisions follow it without a gap."""
    with file_driver(folder):
        pass
    kill_with_a_journal(folder, "a", "b")
    rename_store(folder, ANOTHER)


def older_version_beside_a_newer(folder: Path) -> None:
    """A journal of 0.1.0, which has no incarnation, with changes that are not in `data.json`."""
    shutil.copy(FILES_OF_0_1_0 / "journal-only" / JOURNAL, folder / JOURNAL)
    (folder / DATA).write_text(f'{{"leasehold": 1, "incarnation": "{INCARNATION}", "revision": 0, "entries": [\n]}}\n')


def newer_version_beside_an_older(folder: Path) -> None:
    kill_with_a_journal(folder, "a", "b")
    (folder / DATA).write_text('{"leasehold": 1, "revision": 0, "entries": [\n]}\n')


@pytest.mark.parametrize("arrange", [two_stores, older_version_beside_a_newer, newer_version_beside_an_older])
@pytest.mark.parametrize("name", [JOURNAL, OLD_JOURNAL])
def test_a_start_is_refused_until_the_journal_of_another_store_is_moved_away(
    arrange: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    arrange(tmp_path)
    (tmp_path / JOURNAL).rename(tmp_path / name)
    before = contents(tmp_path)
    reason = refusal(tmp_path)
    assert "\n" not in reason
    assert reason == (
        f"{name} belongs to another store than data.json: put back the data.json that it belongs to, "
        f"or move {name} away; nothing was changed"
    )
    assert contents(tmp_path) == before
    (tmp_path / name).rename(tmp_path / "moved-away")
    with file_driver(tmp_path) as driver:
        assert driver.values() == {}


def test_a_journal_of_0_1_0_that_data_json_covers_is_accepted(tmp_path: Path) -> None:
    """A kill between the two steps of the first start leaves a new `data.json` and the old journals."""
    copy_of(FILES_OF_0_1_0 / "both-journals", tmp_path)
    with file_driver(tmp_path, clock=FrozenClock(WRITTEN_AT)) as driver:
        expected = driver.values()
    for name in (JOURNAL, OLD_JOURNAL):
        shutil.copy(FILES_OF_0_1_0 / "both-journals" / name, tmp_path / name)
    with file_driver(tmp_path, clock=FrozenClock(WRITTEN_AT)) as driver:
        assert (driver.values(), driver.space.revision) == (expected, 68)


# Files of version 0.1.0 ---------------------------------------------------------------------------------------


def copy_of(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        shutil.copy(path, folder / path.name)


def user(number: int) -> bytes:
    return f'{{"name":"user {number}","n":{number},"größe":{1.5 * number}}}'.encode()


def users(*numbers: int) -> dict[str, bytes]:
    return {f"users/{number:03}": user(number) for number in numbers}


EXPIRING = {"expiring": b'"in a year"'}
FIRST = {**users(*(number for number in range(20) if number != 3)), **EXPIRING, "a": b"1"}
SECOND = {**users(*(number for number in range(40) if number not in (3, 5))), **EXPIRING, "a": b"1", "b": b"[1,2,3]"}
THIRD = {
    **users(*(number for number in range(45) if number not in (3, 5))),
    **EXPIRING,
    "b": b"[1,2,3]",
    "c": b"null",
}


@pytest.mark.parametrize(
    ("moment", "contents", "revision"),
    [
        ("journal-only", FIRST, 24),
        ("snapshot-and-journal", SECOND, 56),
        ("both-journals", THIRD, 68),
        ("snapshot-only", THIRD, 68),
    ],
)
def test_files_of_0_1_0_are_opened_with_all_entries_and_get_an_incarnation(
    moment: str, contents: dict[str, bytes], revision: int, tmp_path: Path
) -> None:
    copy_of(FILES_OF_0_1_0 / moment, tmp_path)
    driver = file_driver(tmp_path, clock=FrozenClock(WRITTEN_AT)).__enter__()
    assert driver.values() == contents
    assert driver.space.revision == revision
    lease = driver.read_lease("jobs/nightly")
    assert lease is not None
    assert (lease.lease_id, lease.token) == ("00112233445566778899aabbccddeeff", 23)
    expiring = driver.read("expiring")
    assert expiring is not None
    assert (expiring.revision, expiring.created_at, expiring.expires_at) == (
        22,
        parse_time("2026-11-28T04:45:18.884604Z"),
        parse_time("2027-11-28T04:45:18.884604Z"),
    )
    assert driver.space.incarnation == INCARNATION == written_incarnation(tmp_path)
    driver.kill()
    with file_driver(tmp_path, clock=FrozenClock(WRITTEN_AT)) as again:
        assert (again.values(), again.space.revision) == (contents, revision)


def test_a_journal_of_0_1_0_has_the_shorter_header(tmp_path: Path) -> None:
    data = (FILES_OF_0_1_0 / "journal-only" / JOURNAL).read_bytes()
    reader = JournalReader(data, JOURNAL)
    assert (reader.incarnation, reader.base_revision, reader.end) == ("", 0, HEADER_BYTES - 6)
