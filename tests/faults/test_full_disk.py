"""A file system that is really full: what is refused, what succeeds, and that the store recovers by itself."""

import asyncio
import contextlib
import errno
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from driving import Driver, FrozenClock
from harness.mounts import Mount
from programs import needs
from running import Server, leasehold, refusal, running, until

from leasehold.engines.file import policy
from leasehold.engines.file import volume as file
from leasehold.engines.file.disk import WriteError
from leasehold.engines.file.engine import FileEngine
from leasehold.engines.file.journal import JournalWriter
from leasehold.engines.file.reserve import RESERVE_BYTES
from leasehold.engines.file.snapshot_files import SnapshotFiles
from leasehold.engines.file.space import FileSpace
from leasehold.engines.file.storage import Storage
from leasehold.engines.file.volume import Volume
from leasehold.limits import KIB, MIB

pytestmark = needs("mounts")

ENTRIES = 65
SMALL_ENTRIES = 300
"""Their deletions take several blocks of the journal."""
VALUE = b'"' + b"v" * (100 * KIB) + b'"'


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with Mount(folder, "-t", "tmpfs", "-o", "size=24m", "none"):
        yield folder


@pytest.fixture
def _impatient() -> Iterator[None]:
    """Failed checkpoints are retried at once, and journals over 1 MiB count as large."""
    with (
        patch.object(file, "CHECKPOINT_RETRY_SECONDS", 0.0),
        patch.object(policy, "MIN_JOURNAL_BYTES", 1 * MIB),
    ):
        yield


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Driver]:
    """A process with the store open, killed at the end."""
    engine = FileEngine(folder / "data.json", clock=FrozenClock(), idle_seconds=0.01, verify_seconds=3600).space()
    driver = Driver(engine).__enter__()
    try:
        yield driver
    finally:
        driver.kill()


def opened_files(driver: Driver) -> tuple[Volume, Storage]:
    assert isinstance(driver.space, FileSpace)
    volume = driver.space.volume
    assert volume.storage is not None
    return volume, volume.storage


def checkpoint(driver: Driver) -> None:
    driver.run(opened_files(driver)[0].checkpoint())


def fill(folder: Path, left: int = 0, name: str = "filler") -> Path:
    """Use all space except `left`, in a file that does not belong to the store."""
    filler = folder / name
    facts = os.statvfs(folder)
    with filler.open("ab") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, filler.stat().st_size + facts.f_bavail * facts.f_frsize - left)
    return filler


def fill_for_good(folder: Path) -> None:
    """Use all space, also what a file releases that is being written now and cannot be completed."""

    def is_full() -> bool:
        fill(folder)
        return not [*folder.glob("*.tmp-*")] and os.statvfs(folder).f_bavail == 0

    until(is_full)


def fill_with_entries(driver: Driver, folder: Path, entries: int) -> None:
    """Commit until the disk is full. The old journal has space, but a new `data.json` beside it has none."""
    for number in range(entries):
        driver.commit((f"k{number:03}", VALUE))
    checkpoint(driver)
    assert journals(folder) == []
    text_bytes = (folder / "data.json").stat().st_size
    fill(folder, left=text_bytes + text_bytes // 2)
    for number in range(1_000):
        if error := driver.try_commit((f"k{number % entries:03}", VALUE)):
            assert error.code == "storage_full"
            assert "data.json.journal.old" in journals(folder), "a checkpoint must have failed"
            return
    raise AssertionError("the disk was never full")


def is_healed(driver: Driver) -> bool:
    """Run the housekeeping that runs every second, then write. Returns whether the store accepts the write."""
    driver.run(driver.space.recover())
    return driver.space.fault is None and driver.try_commit(("new", VALUE)) is None


def has_checkpointed(driver: Driver, folder: Path) -> bool:
    """Whether a checkpoint has been written, after one turn of the event loop for background work."""
    driver.run(asyncio.sleep(0.01))
    return "data.json.journal.old" not in journals(folder)


def has_reserve(folder: Path) -> bool:
    reserve = folder / "data.json.reserve"
    return reserve.exists() and reserve.stat().st_size == RESERVE_BYTES


def journals(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("data.json.journal*"))


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("restarts", [False, True], ids=["in one life", "past a restart"])
def test_deletions_let_a_store_recover_whose_checkpoint_had_no_space(disk: Path, *, restarts: bool) -> None:
    with contextlib.ExitStack() as first:
        driver = first.enter_context(opened(disk))
        fill_with_entries(driver, disk, ENTRIES)
        fill(disk)
        for number in range(ENTRIES - 1):
            assert driver.try_commit((f"k{number:03}", None)) is None
        if restarts:
            first.close()
            driver = first.enter_context(opened(disk))
        until(lambda: is_healed(driver))
        until(lambda: has_checkpointed(driver, disk))
        until(lambda: has_reserve(disk))
    with opened(disk) as driver:
        assert sorted(driver.values()) == [f"k{ENTRIES - 1:03}", "new"]


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("restarts", [False, True], ids=["in one life", "past a restart"])
def test_freed_space_lets_a_store_recover_whose_checkpoint_had_no_space(disk: Path, *, restarts: bool) -> None:
    with contextlib.ExitStack() as first:
        driver = first.enter_context(opened(disk))
        fill_with_entries(driver, disk, ENTRIES // 2)  # without the filler, there is space for everything
        if restarts:
            first.close()
            driver = first.enter_context(opened(disk))
        (disk / "filler").unlink()
        until(lambda: is_healed(driver))
        until(lambda: has_checkpointed(driver, disk))
    with opened(disk) as driver:
        assert len(driver.values()) == ENTRIES // 2 + 1


@pytest.mark.usefixtures("_impatient")
def test_a_checkpoint_uses_the_reserve_if_that_is_enough(disk: Path) -> None:
    with opened(disk) as driver:
        for number in range(6):
            driver.commit((f"k{number}", VALUE))
        fill(disk)
        checkpoint(driver)
        assert (journals(disk), driver.space.fault) == ([], None)
        until(lambda: has_reserve(disk))


@pytest.mark.usefixtures("_impatient")
def test_a_deletion_waits_for_a_checkpoint_that_has_taken_the_space_and_fails(disk: Path) -> None:
    """The checkpoint holds all that the reserve has released until a deletion has found the disk full."""
    taken, refused = threading.Event(), threading.Event()
    replace, append = SnapshotFiles.replace, JournalWriter.append

    def note_a_refusal(self: JournalWriter, record: bytes) -> None:
        try:
            append(self, record)
        except WriteError:
            if taken.is_set():
                refused.set()
            raise

    with opened(disk) as driver:
        volume, storage = opened_files(driver)

        def take_the_space(self: SnapshotFiles, *args: Any) -> None:
            if taken.is_set() or not storage.reserve.is_spent:
                return replace(self, *args)
            file = fill(disk, name="data.json.tmp-0")
            taken.set()
            refused.wait(60)
            file.unlink()
            raise WriteError(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), nothing_changed=True)

        def has_begun_a_checkpoint() -> bool:
            volume.start_checkpoint(storage)
            driver.run(asyncio.sleep(0.01))
            return taken.is_set()

        driver.commit(*((f"small{number}", b"1") for number in range(SMALL_ENTRIES)))
        fill_with_entries(driver, disk, ENTRIES)
        fill(disk)
        with (
            patch.object(SnapshotFiles, "replace", take_the_space),
            patch.object(JournalWriter, "append", note_a_refusal),
        ):
            for number in range(ENTRIES):
                assert driver.try_commit((f"k{number:03}", None)) is None
            until(has_begun_a_checkpoint)
            for number in range(SMALL_ENTRIES):
                assert driver.try_commit((f"small{number}", None)) is None
            assert refused.is_set()
        until(lambda: is_healed(driver))
        assert sorted(driver.values()) == ["new"]


@pytest.mark.usefixtures("_impatient")
def test_after_the_reserve_is_used_only_changes_that_free_space_are_accepted(disk: Path) -> None:
    """The journal has no file yet, so any commit needs space for one."""
    with opened(disk) as driver:
        for number in range(6):
            driver.commit((f"k{number}", VALUE))
        checkpoint(driver)
        fill(disk)
        for number in range(6):
            assert driver.try_commit((f"k{number}", None)) is None
            error = driver.try_commit(("small", b"1"))
            assert error is not None
            assert error.code == "storage_full"


@pytest.mark.usefixtures("_impatient")
def test_a_store_started_without_space_for_the_reserve_is_degraded_until_there_is_space(disk: Path) -> None:
    with opened(disk):
        pass
    (disk / "data.json.reserve").unlink()
    filler = fill(disk, left=100 * KIB)
    with opened(disk) as driver:
        error = driver.try_commit(("a", b"1"))
        assert error is not None
        assert error.code == "storage_full"
        filler.unlink()
        until(lambda: is_healed(driver))


# The service --------------------------------------------------------------------------------------------------


def is_healthy(server: Server) -> bool:
    return server.request("GET", "/health").status_code == 200


@pytest.fixture
def stuck(disk: Path) -> Iterator[Server]:
    """A server on a full disk, with only a part of its entries in `data.json`."""
    with running(disk / "data.json") as server:
        for number in range(ENTRIES):
            assert server.put(f"k{number}", VALUE.decode()).status_code == 201
        server.restart()
        number = 0
        while (answer := server.put(f"k{number % ENTRIES}", VALUE.decode())).status_code == 200:
            number += 1
        assert refusal(answer) == (507, "storage_full")
        fill_for_good(disk)
        yield server


def test_a_service_recovers_by_itself_after_nearly_everything_was_deleted(disk: Path, stuck: Server) -> None:
    for number in range(ENTRIES):
        assert stuck.delete(f"k{number}").status_code == 200
    until(lambda: is_healthy(stuck))
    assert stuck.put("new", VALUE.decode()).status_code == 201
    stuck.restart()
    assert [entry["key"] for entry in stuck.request("GET", "/kv").json()["entries"]] == ["new"]
    assert journals(disk) in ([], ["data.json.journal"])


def test_a_service_recovers_by_itself_after_a_deletion_by_prefix(stuck: Server) -> None:
    assert stuck.request("DELETE", "/kv?prefix=k").json()["deleted"] == ENTRIES
    until(lambda: stuck.put("new", VALUE.decode()).status_code in (200, 201))
    assert is_healthy(stuck)


def test_a_transaction_on_a_full_disk_is_done_if_it_only_deletes(stuck: Server) -> None:
    delete = [{"op": "delete", "key": f"k{number}"} for number in range(3)]
    write = {"op": "put", "key": "new", "value": VALUE.decode()}
    assert refusal(stuck.request("POST", "/txn", json={"do": [*delete, write]})) == (507, "storage_full")
    assert stuck.get("k0").status_code == 200
    assert stuck.request("POST", "/txn", json={"do": [*delete, {"op": "get", "key": "k3"}]}).status_code == 200
    assert stuck.get("k0").status_code == 404


def test_a_service_that_cannot_write_its_last_checkpoint_reports_it_at_shutdown(disk: Path, stuck: Server) -> None:
    entries = stuck.request("GET", "/kv").json()
    code = stuck.terminate()
    told = f"leasehold: the last checkpoint failed ({os.strerror(errno.ENOSPC)}): data.json alone is not complete, "
    told += "keep data.json.journal.old and data.json.journal with it; the next start reads all of them"
    assert (code, stuck.log().splitlines()[-1]) == (1, told)
    assert f"revision {entries['revision']}" in leasehold("check", str(disk / "data.json")).stdout
    assert json.loads((disk / "data.json").read_bytes())["revision"] < entries["revision"]
    stuck.start()
    assert stuck.request("GET", "/kv").json() == entries
