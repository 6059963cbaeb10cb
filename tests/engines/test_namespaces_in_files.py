"""The file engine: several namespaces in one store."""

import asyncio
import errno
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from driving import file_driver, stored_state
from running import leasehold
from store_files import DATA, JOURNAL, OLD_JOURNAL, RESERVE, document, files
from volumes import NO_CHANGE, Volume, put

from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.offline import advance_files, restore_files
from leasehold.engines.file.records import LARGE_CONTENT_BYTES
from leasehold.engines.file.recovery import Paths, inspect
from leasehold.errors import ServiceError
from leasehold.model import ENTRY, Binary, Content, Entry, Quota, QuotaChange
from leasehold.values.binary import base64_pieces

NAMESPACES = "data.json.namespaces"


def test_namespaces_keep_their_own_entries_and_revisions_after_a_restart(tmp_path: Path) -> None:
    with Volume(tmp_path) as volume:
        assert volume.create("a")
        assert volume.create("b")
        volume.put("a", ("x", b"1"), ("y", b"2"))
        volume.put("b", ("x", b"3"))
        volume.put("default", ("x", b"4"))
        before = volume.contents()
    assert before == {
        "default": (1, {"x": b"4"}),
        "a": (2, {"x": b"1", "y": b"2"}),
        "b": (1, {"x": b"3"}),
    }
    assert JOURNAL not in files(tmp_path)
    with Volume(tmp_path) as volume:
        assert volume.contents() == before


def test_namespaces_survive_a_kill(tmp_path: Path) -> None:
    volume = Volume(tmp_path).__enter__()
    volume.create("a")
    volume.put("a", ("x", b"1"))
    volume.checkpoint()
    volume.put("a", ("x", b"2"), ("z", b"0"))
    volume.put("a", ("z", None))
    volume.create("b", QuotaChange(5, 1000))
    volume.put("default", ("d", b"1"))
    volume.create("c")
    volume.put("c", ("gone", b"1"))
    volume.delete("c")
    before = volume.contents()
    volume.kill()
    assert before["c"] == 2
    with Volume(tmp_path) as volume:
        assert volume.contents() == before
        assert volume.quota("b") == Quota(5, 1000)


def test_a_namespace_that_is_created_again_continues_with_another_incarnation(tmp_path: Path) -> None:
    with Volume(tmp_path) as volume:
        volume.create("a")
        volume.put("a", ("x", b"1"), ("y", b"2"))
        first = volume.engine.space("a")
        assert volume.delete("a") == 3
        with pytest.raises(ServiceError) as unknown:
            volume.engine.space("a")
        assert unknown.value.code == "no_such_namespace"
        refusal = volume.run(put(volume.engine, first, ("x", b"9")))
        assert refusal is not None
        assert refusal.code == "no_such_namespace"
    with Volume(tmp_path, first_incarnation=100) as volume:
        assert volume.contents() == {"default": (0, {}), "a": 3}
        assert volume.create("a")
        assert volume.engine.space("a").incarnation != first.incarnation
        volume.put("a", ("x", b"3"))
        assert volume.contents()["a"] == (4, {"x": b"3"})


def test_a_quota_is_changed_and_survives_a_restart_also_for_default(tmp_path: Path) -> None:
    with Volume(tmp_path) as volume:
        volume.create("a", QuotaChange(5, 1000))
        assert not volume.create("a", QuotaChange(max_entries=7))
        assert not volume.create("default", QuotaChange(max_bytes=99))
        created_at = volume.run(volume.engine.namespace("default")).created_at
    with Volume(tmp_path) as volume:
        assert (volume.quota("a"), volume.quota("default")) == (Quota(7, 1000), Quota(None, 99))
        assert volume.run(volume.engine.namespace("default")).created_at == created_at


def test_creating_a_namespace_again_without_a_change_writes_nothing(tmp_path: Path) -> None:
    with Volume(tmp_path) as volume:
        volume.create("a", QuotaChange(5, None))
        before = files(tmp_path)
        assert not volume.create("a", NO_CHANGE)
        assert files(tmp_path) == before


def test_a_store_with_default_only_has_no_other_file(tmp_path: Path) -> None:
    with Volume(tmp_path) as volume:
        volume.put("default", ("x", b"1"))
        volume.checkpoint()
        assert {name for name in files(tmp_path) if "namespaces" in name} == set()


def test_a_checkpoint_writes_only_what_has_changed(tmp_path: Path) -> None:
    with Volume(tmp_path) as volume:
        volume.create("a")
        volume.put("a", ("x", b"1"))
        volume.put("default", ("x", b"1"))
        volume.checkpoint()
        before = (tmp_path / NAMESPACES).stat().st_ino
        volume.put("default", ("x", b"2"))
        volume.checkpoint()
        assert (tmp_path / NAMESPACES).stat().st_ino == before
        assert JOURNAL not in files(tmp_path)
        assert OLD_JOURNAL not in files(tmp_path)


def test_the_file_of_the_namespaces_can_be_read(tmp_path: Path) -> None:
    with Volume(tmp_path) as volume:
        volume.create("team-a", QuotaChange(5, None))
        volume.put("team-a", ("x", b'{"n":1}'))
        volume.create("team-b")
        volume.delete("team-b")
        volume.create("team-c")
    found = json.loads((tmp_path / NAMESPACES).read_bytes())
    assert (found["leasehold_namespaces"], found["sequence"]) == (1, 5)
    first, second, third = found["namespaces"]
    assert (first["namespace"], first["max_entries"], first["data"]["revision"]) == ("team-a", 5, 1)
    assert [entry["value"] for entry in first["data"]["entries"]] == [{"n": 1}]
    assert second == {"namespace": "team-b", "deleted_at_revision": 1}
    assert third["data"]["entries"] == []


def test_an_edited_file_of_namespaces_is_read_as_it_is(tmp_path: Path) -> None:
    with Volume(tmp_path) as volume:
        volume.create("a")
        volume.put("a", ("x", b"1"))
        volume.create("b")
        volume.delete("b")
    whole = json.loads((tmp_path / NAMESPACES).read_bytes())
    whole["namespaces"][0]["data"]["entries"][0]["value"] = {"edited": True}
    (tmp_path / NAMESPACES).write_text(json.dumps(whole, indent=2))
    with Volume(tmp_path) as volume:
        assert volume.contents() == {"default": (0, {}), "a": (1, {"x": b'{"edited":true}'}), "b": 1}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[:-4], "not as Leasehold writes it"),
        (lambda text: text.replace(b'"namespaces": [', b'"namespaces": {'), "not as Leasehold writes it"),
        (lambda text: text.replace(b'_namespaces": 1', b'_namespaces": 2'), "format 2 is of another version"),
        (lambda text: text.replace(b'"sequence": 2', b'"sequence": -2'), "its log or its sequence is wrong"),
        (lambda text: text.replace(b'"namespace":"a"', b'"namespace":"A"'), "line 2: namespace 'A': the name is not"),
        (lambda text: text.replace(b'"key":"x"', b'"key":""'), "line 4: entry"),
        (lambda text: text.replace(b'"max_entries":3', b'"max_entries":-3'), "its quota is negative"),
        (lambda text: text.replace(b'"created_at":', b'"created_at":"x","created":', 1), "line 2: the namespace is"),
    ],
)
def test_a_wrong_file_of_namespaces_is_refused_with_the_place_in_it(tmp_path: Path, edit: object, message: str) -> None:
    with Volume(tmp_path) as volume:
        volume.create("a", QuotaChange(3, None))
        volume.put("a", ("x", b"1"))
    path = tmp_path / NAMESPACES
    text = edit(path.read_bytes())  # type: ignore[operator] # a function
    path.write_bytes(text)
    with pytest.raises(ServiceError, match=message) as caught, Volume(tmp_path):
        pass
    assert caught.value.message.startswith(f"{NAMESPACES} cannot be used: ")
    assert path.read_bytes() == text


def test_a_namespace_larger_than_a_block_is_read_in_blocks(tmp_path: Path) -> None:
    with Volume(tmp_path) as volume:
        volume.create("a")
        volume.create("large")
        for part in range(10):
            volume.put("large", *((f"{part}/{number}", b'"%b"' % (b"v" * 100)) for number in range(1000)))
        volume.create("z")
        volume.put("z", ("x", b"1"))
        before = volume.contents()
    assert (tmp_path / NAMESPACES).stat().st_size > 1 << 20
    with Volume(tmp_path) as volume:
        assert volume.contents() == before


def test_a_journal_without_the_file_of_namespaces_that_it_follows_is_refused(tmp_path: Path) -> None:
    volume = Volume(tmp_path).__enter__()
    volume.create("a")
    volume.checkpoint()
    volume.put("a", ("x", b"1"))
    volume.kill()
    (tmp_path / NAMESPACES).rename(tmp_path / "away")
    with pytest.raises(ServiceError, match=f"but {NAMESPACES} is missing or empty: put back"), Volume(tmp_path):
        pass
    (tmp_path / "away").rename(tmp_path / NAMESPACES)
    with Volume(tmp_path) as volume:
        assert volume.contents()["a"] == (1, {"x": b"1"})


def test_the_namespaces_of_another_store_are_refused(tmp_path: Path) -> None:
    for name, first in (("one", 1), ("two", 50)):
        (tmp_path / name).mkdir()
        volume = Volume(tmp_path / name, first_incarnation=first).__enter__()
        volume.create("a")
        volume.checkpoint()
        volume.put("a", ("x", b"1"))
        volume.kill()
    (tmp_path / "two" / NAMESPACES).replace(tmp_path / "one" / NAMESPACES)
    with pytest.raises(ServiceError, match=f"belongs to another store than {NAMESPACES}"), Volume(tmp_path / "one"):
        pass


def test_the_file_of_namespaces_is_written_again_when_it_is_removed_meanwhile(tmp_path: Path) -> None:
    with Volume(tmp_path) as volume:
        volume.create("a")
        volume.put("a", ("x", b"1"))
        volume.checkpoint()
        (tmp_path / NAMESPACES).unlink()
        volume.run(volume.engine.volume.verify())
        assert b'"x"' in (tmp_path / NAMESPACES).read_bytes()


def test_a_file_that_replaced_that_of_the_namespaces_is_kept(tmp_path: Path) -> None:
    with Volume(tmp_path) as volume:
        volume.create("a")
        volume.checkpoint()
        (tmp_path / NAMESPACES).write_bytes(b"of another program")
        volume.run(volume.engine.volume.verify())
        assert (tmp_path / f"{NAMESPACES}.replaced-1").read_bytes() == b"of another program"
        volume.put("a", ("x", b"1"))
    with Volume(tmp_path) as volume:
        assert volume.contents()["a"] == (1, {"x": b"1"})


def test_check_reports_all_namespaces(tmp_path: Path) -> None:
    volume = Volume(tmp_path).__enter__()
    volume.create("a")
    volume.put("a", ("x", b"1"))
    volume.kill()
    report = inspect(tmp_path / DATA, OsDisk())
    assert (report.namespaces.sequence, report.namespaces_sequence) == (2, 0)
    assert report.namespaces.states["a"].of(ENTRY).by_name.keys() == {"x"}


def killed_with_namespaces(folder: Path) -> Mapping[str, object]:
    """A store with the namespace `a`, with `gone`, which was deleted, and with all of it in the journal."""
    volume = Volume(folder).__enter__()
    volume.put("default", ("d", b"1"))
    for name in ("a", "gone"):
        volume.create(name)
        volume.put(name, ("x", b"1"), ("y", b"2"))
    volume.delete("gone")
    contents = volume.contents()
    volume.kill()
    return contents


def test_an_advance_takes_all_namespaces_along(tmp_path: Path) -> None:
    killed_with_namespaces(tmp_path)
    head = advance_files(tmp_path / DATA, OsDisk(), by=100, make_incarnation=iter_incarnations(50), now=0)
    assert head == 101
    with Volume(tmp_path, first_incarnation=100) as volume:
        assert volume.contents() == {"default": (101, {"d": b"1"}), "a": (102, {"x": b"1", "y": b"2"}), "gone": 103}
        assert int(volume.engine.space("a").incarnation, 16) > 50
        with pytest.raises(ServiceError) as compacted:
            volume.run(volume.engine.space("a").changes(ENTRY, 101, "", 10))
        assert compacted.value.code == "revision_compacted"


def test_a_restore_leaves_the_other_namespaces_as_they_are(tmp_path: Path) -> None:
    before = killed_with_namespaces(tmp_path)
    backup = stored_state({"b": Entry("b", b"7", 3, 0, 0)}, 3)
    restore_files(
        tmp_path / DATA, OsDisk(), backup, advance=10, replace=True, make_incarnation=iter_incarnations(50), now=0
    )
    with Volume(tmp_path, first_incarnation=100) as volume:
        assert volume.contents() == {**before, "default": (13, {"b": b"7"})}


def iter_incarnations(first: int) -> Callable[[], str]:
    numbers = iter(range(first, 1 << 20))
    return lambda: f"{next(numbers):06x}"


@pytest.mark.parametrize("namespace", ["a", "gone", "new"])
def test_a_backup_is_restored_into_a_namespace(namespace: str, tmp_path: Path) -> None:
    """It exists, was deleted, or has never existed. The deletion has taken a revision."""
    expected = 13 if namespace == "gone" else 12
    before = killed_with_namespaces(tmp_path)
    store, backup = str(tmp_path / DATA), str(tmp_path / "backup")
    assert leasehold("backup", backup, "--store", store, "--namespace", "a").stderr == ""
    result = leasehold("restore", backup, "--store", store, "--namespace", namespace, "--advance", "10", "--replace")
    assert result.stdout.startswith(
        f"{store}, namespace {namespace}, holds 2 entries of {backup}, at revision {expected}\n"
    )
    assert ("what it held before" in result.stdout) is (namespace == "a")
    with Volume(tmp_path, first_incarnation=100) as volume:
        assert volume.contents() == {**before, namespace: (expected, {"x": b"1", "y": b"2"})}
        volume.put(namespace, ("z", b"1"))
    with Volume(tmp_path, first_incarnation=200) as volume:
        assert volume.contents()[namespace] == (expected + 1, {"x": b"1", "y": b"2", "z": b"1"})


def test_a_restore_refuses_a_namespace_that_is_not_empty(tmp_path: Path) -> None:
    before = killed_with_namespaces(tmp_path)
    store, backup = str(tmp_path / DATA), str(tmp_path / "backup")
    leasehold("backup", backup, "--store", store)
    result = leasehold("restore", backup, "--store", store, "--namespace", "a")
    assert result.returncode == 1
    assert f"the namespace a of {store} is not empty" in result.stderr
    with Volume(tmp_path, first_incarnation=100) as volume:
        assert volume.contents() == before


@pytest.mark.parametrize("namespace", ["gone", "new"])
def test_a_namespace_that_does_not_exist_is_not_backed_up(namespace: str, tmp_path: Path) -> None:
    killed_with_namespaces(tmp_path)
    output = tmp_path / "backup"
    result = leasehold("backup", str(output), "--store", str(tmp_path / DATA), "--namespace", namespace)
    assert result.returncode == 1
    assert "no such namespace" in result.stderr
    assert not output.exists()


def test_a_check_counts_the_other_namespaces(tmp_path: Path) -> None:
    killed_with_namespaces(tmp_path)
    assert leasehold("check", str(tmp_path / DATA)).stdout.endswith("; 1 other namespaces with 2 entries\n")


def test_a_move_says_how_many_namespaces_it_has_taken_along(tmp_path: Path) -> None:
    for name in ("store", "other", "empty"):
        (tmp_path / name).mkdir()
    before = killed_with_namespaces(tmp_path / "store")
    source, target = str(tmp_path / "store" / DATA), str(tmp_path / "empty" / DATA)
    moved = leasehold("move", source, target)
    told = f"{target} holds everything of {source}: 3 entries in 2 namespaces, default at revision 1\n"
    assert (moved.returncode, moved.stdout.startswith(told)) == (0, True), moved
    with Volume(tmp_path / "empty", first_incarnation=100) as volume:
        assert volume.contents() == before
    with Volume(tmp_path / "other") as volume:
        volume.put("default", ("d", b"1"))
    onto = leasehold("move", str(tmp_path / "other" / DATA), target)
    assert (onto.returncode, "the target is not empty" in onto.stderr) == (1, True)


def test_an_advance_that_was_killed_between_the_two_files_is_completed_by_the_next_start(tmp_path: Path) -> None:
    killed_with_namespaces(tmp_path)
    rename = OsDisk.rename

    class KilledDisk(OsDisk):
        def rename(self, source: Path, target: Path) -> None:
            if source.name.startswith(f"{NAMESPACES}.for-"):
                raise OSError(errno.EIO, "killed")
            rename(self, source, target)

    with pytest.raises(ServiceError) as caught:
        advance_files(tmp_path / DATA, KilledDisk(), by=100, make_incarnation=iter_incarnations(50), now=0)
    assert "whether it was changed is unknown" in caught.value.message
    with Volume(tmp_path, first_incarnation=100) as volume:
        assert volume.contents() == {"default": (101, {"d": b"1"}), "a": (102, {"x": b"1", "y": b"2"}), "gone": 103}
        volume.put("a", ("z", b"1"))
    assert sorted(files(tmp_path)) == [DATA, "data.json.lock", NAMESPACES, RESERVE]


def test_a_large_change_of_a_namespace_is_encoded_by_the_thread_that_writes_it(tmp_path: Path) -> None:
    threads: list[str] = []

    def encode(data: bytes) -> Iterator[bytes]:
        threads.append(threading.current_thread().name)
        yield from base64_pieces(data)

    value = Binary("text/plain", Content(b"x" * (LARGE_CONTENT_BYTES + 1)))
    volume = Volume(tmp_path).__enter__()
    volume.create("a")
    with patch("leasehold.engines.file.records.base64_pieces", encode):
        volume.put("a", ("large", value), ("small", b"1"))
    assert threads == ["leasehold-sync"]
    volume.kill()
    with Volume(tmp_path) as volume:
        assert volume.contents()["a"] == (2, {"large": value, "small": b"1"})


class CountingDisk(OsDisk):
    """Counts the syncs of files. While `may_sync` is clear, a sync waits."""

    def __init__(self) -> None:
        self.syncs = 0
        self.may_sync = threading.Event()
        self.may_sync.set()

    def fdatasync(self, file: int) -> None:
        self.may_sync.wait()
        self.syncs += 1
        super().fdatasync(file)


def test_commits_of_several_namespaces_that_wait_share_one_sync(tmp_path: Path) -> None:
    disk = CountingDisk()
    names = [f"n{number}" for number in range(20)]
    volume = Volume(tmp_path, disk=disk).__enter__()
    for name in names:
        volume.create(name)
    before = disk.syncs

    async def write_all() -> None:
        disk.may_sync.clear()
        engine = volume.engine
        first = asyncio.create_task(put(engine, engine.space(), ("first", b"1")))
        await asyncio.sleep(0)
        others = [asyncio.create_task(put(engine, engine.space(name), ("x", b"1"))) for name in names]
        await asyncio.sleep(0)
        disk.may_sync.set()
        assert await asyncio.gather(first, *others) == [None] * 21

    volume.run(write_all())
    assert disk.syncs - before <= 2
    contents = volume.contents()
    volume.kill()
    with Volume(tmp_path) as volume:
        assert volume.contents() == contents
        assert contents["n19"] == (1, {"x": b"1"})


class FullDisk(OsDisk):
    """Has room for records up to this size only. To remove the reserve makes room."""

    largest = 1 << 30

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        if path.name == RESERVE:
            self.largest = 1 << 30

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        if len(data) > self.largest and any(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().pwrite(file, data, offset)


def test_only_the_commit_that_is_too_large_for_the_disk_is_refused(tmp_path: Path) -> None:
    disk = FullDisk()
    volume = Volume(tmp_path, disk=disk).__enter__()
    for name in ("a", "b", "c"):
        volume.create(name)

    async def write_all() -> Sequence[str | None]:
        disk.largest = 1000
        values = {"a": b"1", "b": b'"%b"' % (b"x" * 5000), "c": b"3"}
        engine = volume.engine
        commits = (put(engine, engine.space(name), ("k", value)) for name, value in values.items())
        return [None if refusal is None else refusal.code for refusal in await asyncio.gather(*commits)]

    assert volume.run(write_all()) == [None, "storage_full", None]
    disk.largest = 1 << 30
    volume.put("b", ("k", b"2"))
    contents = volume.contents()
    assert contents == {
        "default": (0, {}),
        "a": (1, {"k": b"1"}),
        "b": (1, {"k": b"2"}),
        "c": (1, {"k": b"3"}),
    }
    volume.kill()
    with Volume(tmp_path) as volume:
        assert volume.contents() == contents


def test_a_namespace_can_be_deleted_on_a_full_disk(tmp_path: Path) -> None:
    disk = FullDisk()
    volume = Volume(tmp_path, disk=disk).__enter__()
    volume.create("a")
    volume.put("a", ("k", b"1"))
    assert RESERVE in files(tmp_path)
    disk.largest = 0
    refusal = volume.try_put("a", ("k", b"2"))
    assert refusal is not None
    assert refusal.code == "storage_full"
    assert volume.delete("a") == 2
    assert RESERVE not in files(tmp_path)
    assert volume.contents() == {"default": (0, {}), "a": 2}
    volume.kill()
    with Volume(tmp_path) as volume:
        assert volume.contents() == {"default": (0, {}), "a": 2}


def test_a_torn_record_of_several_commits_leaves_none_of_them(tmp_path: Path) -> None:
    volume = Volume(tmp_path).__enter__()
    for name in ("a", "b"):
        volume.create(name)
    before = volume.contents()
    journal = volume.engine.volume.storage._journals.current  # type: ignore[union-attr] # it is open
    assert journal is not None
    end = journal.end

    async def write_both() -> None:
        engine = volume.engine
        await asyncio.gather(*(put(engine, engine.space(name), ("x", b"1")) for name in ("a", "b")))

    volume.run(write_both())
    written = journal.end
    volume.kill()
    data = (tmp_path / JOURNAL).read_bytes()
    for hole in range(end, written, 7):
        (tmp_path / JOURNAL).write_bytes(data[:hole] + bytes(1) + data[hole + 1 :])
        if data[hole] == 0:
            continue
        volume = Volume(tmp_path).__enter__()
        assert volume.contents() == before
        volume.kill()


def test_a_deletion_waits_for_the_commit_under_way_and_refuses_the_next(tmp_path: Path) -> None:
    with Volume(tmp_path) as volume:
        volume.create("a")
        engine = volume.engine

        async def delete_during_a_commit() -> None:
            space = engine.space("a")
            before = asyncio.create_task(put(engine, space, ("x", b"1")))
            await asyncio.sleep(0)
            deletion = asyncio.create_task(engine.delete("a"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            after = asyncio.create_task(put(engine, space, ("y", b"1")))
            assert await before is None
            assert await deletion == 2
            refusal = await after
            assert refusal is not None
            assert refusal.code == "no_such_namespace"

        volume.run(delete_during_a_commit())
        assert volume.contents() == {"default": (0, {}), "a": 2}


def test_old_files_stay_as_they_were(tmp_path: Path) -> None:
    """A store that has never had another namespace writes what version 0.2 wrote before there were any."""
    with file_driver(tmp_path) as driver:
        driver.commit(("a", b"1"), ("b", b"2"))
        driver.put("a", b"3")
    assert files(tmp_path).keys() == {DATA, "data.json.lock", "data.json.reserve"}
    assert (tmp_path / DATA).read_bytes().startswith(document(3)[:60])
    assert Paths(tmp_path / DATA).namespaces.name == NAMESPACES
