"""Every file operation may fail, and a disk may be full; and the harness detects planted bugs."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from driving import Driver, file_driver
from harness.disk_faults import CHANGES, WRITES, Fault, FaultyDisk, History, survive_disk_faults

from leasehold.engines.file import disk as disk_module
from leasehold.engines.file import journal as journal_module
from leasehold.engines.file.disk import Disk, WriteError
from leasehold.engines.file.failure import Failure
from leasehold.engines.file.reserve import RESERVE_BYTES
from leasehold.engines.file.space import FileSpace

SEED = 3
"""With this seed a run uses every file operation and starts with a torn journal."""
LARGE = b'"' + b"x" * 300_000 + b'"'
"""With this value a store is too large to be rewritten by each commit."""


def fault_code(driver: Driver) -> str | None:
    fault = driver.space.fault
    return None if fault is None else fault.code


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.long
def test_a_store_survives_the_failure_of_any_single_operation(tmp_path: Path, fault: Fault) -> None:
    finding = survive_disk_faults(tmp_path, SEED, faults=[fault])
    assert finding.violations == []
    struck = {name for name in CHANGES if finding.figures[f"faults of {name}"]}
    assert struck == (WRITES if fault is Fault.SHORT else CHANGES)


# The harness detects planted bugs -----------------------------------------------------------------------------


def write_once(disk: Disk, file: int, data: bytes) -> None:
    disk.write(file, data)


def pwrite_once(disk: Disk, file: int, data: bytes, offset: int) -> None:
    disk.pwrite(file, data, offset)


@contextmanager
def short_writes_ignored() -> Iterator[None]:
    with patch.object(disk_module, "write_all", write_once), patch.object(journal_module, "pwrite_all", pwrite_once):
        yield


@contextmanager
def failing_syncs(name: str, *, tries: int) -> Iterator[None]:
    """A bug: failed syncs are retried this often, and then count as done."""
    sync: Callable[[FaultyDisk, int], None] = getattr(FaultyDisk, name)

    def try_sync(disk: FaultyDisk, file: int) -> None:
        for _ in range(tries):
            try:
                return sync(disk, file)
            except OSError:
                pass
        return None

    with patch.object(FaultyDisk, name, try_sync):
        yield


@contextmanager
def unknown_outcomes_refused() -> Iterator[None]:
    begin = WriteError.__init__

    def claim(self: WriteError, cause: OSError, *, nothing_changed: bool) -> None:
        begin(self, cause, nothing_changed=True)

    with patch.object(WriteError, "__init__", claim):
        yield


@contextmanager
def files_in_doubt_used() -> Iterator[None]:
    """A bug: the same files are used after a failure."""
    with patch.object(Failure, "failed", property(lambda _: False, lambda _, __: None), create=True):
        yield


def broken_by(folder: Path, fault: Fault, *at: str) -> list[str]:
    """What goes wrong when one of these operations fails."""
    return survive_disk_faults(folder, SEED, faults=[fault], at=at).violations


def test_an_ignored_short_write_is_detected(tmp_path: Path) -> None:
    with short_writes_ignored():
        assert broken_by(tmp_path, Fault.SHORT, *WRITES)


@pytest.mark.parametrize("sync", ["fsync", "fdatasync"])
def test_a_retried_sync_is_detected(tmp_path: Path, sync: str) -> None:
    with failing_syncs(sync, tries=2):
        assert any("after its sync had failed" in violation for violation in broken_by(tmp_path, Fault.EIO, sync))


def test_data_lost_by_a_failed_sync_is_detected(tmp_path: Path) -> None:
    with failing_syncs("fdatasync", tries=1):
        assert any("is corrupt" in violation for violation in broken_by(tmp_path, Fault.EIO, "fdatasync"))


def test_an_unknown_outcome_reported_as_not_stored_is_detected(tmp_path: Path) -> None:
    with unknown_outcomes_refused():
        assert broken_by(tmp_path, Fault.LATE, "fdatasync")


def test_files_used_after_their_failure_are_detected(tmp_path: Path) -> None:
    with files_in_doubt_used():
        assert broken_by(tmp_path, Fault.EIO, "fdatasync")


# Particular faults --------------------------------------------------------------------------------------------


def test_a_batch_of_unknown_outcome_does_not_return_after_later_ones_are_acknowledged(tmp_path: Path) -> None:
    disk = FaultyDisk()
    history = History()
    driver = file_driver(tmp_path, disk=disk).__enter__()
    history.put(driver, ("a", b"1"))
    disk.fail_next = "fdatasync"
    error = history.put(driver, ("a", b"unknown"), ("b", b"unknown"))
    assert disk.failed == "fdatasync"
    assert error is not None
    assert (error.code, error.message) == ("unavailable", "the change may or may not have been stored")
    assert history.put(driver, ("c", b"2")) is None
    driver.kill()
    with file_driver(tmp_path) as driver:
        assert (driver.space.revision, driver.values()) == (2, {"a": b"1", "c": b"2"})


@pytest.mark.parametrize("fault", [Fault.EIO, Fault.LATE])
def test_a_data_json_with_an_unknown_change_is_replaced_before_the_next_change(tmp_path: Path, fault: Fault) -> None:
    """Whichever operation fails while an isolated change is written to `data.json`, later changes survive."""
    outcomes: set[str] = set()
    for number in range(100):
        (folder := tmp_path / str(number)).mkdir()
        disk, history = FaultyDisk(fault=fault), History()
        driver = file_driver(folder, disk=disk).__enter__()
        history.put(driver, ("a", b"1"), alone=True)
        disk.fail_at = disk.operations + number
        error = history.put(driver, ("a", None), alone=True)
        outcomes.add("" if error is None else error.message)
        history.put(driver, ("b", b"2"), ("c", b"3"))
        driver.kill()
        with file_driver(folder) as driver:
            history.check(driver)
        if error is None and not disk.failed:
            break
    assert outcomes > {"", "the change may or may not have been stored"}


def test_the_store_is_degraded_while_the_disk_fails(tmp_path: Path) -> None:
    class DeadDisk(FaultyDisk):
        dead = False

        def _strikes(self, name: str) -> bool:
            return self.dead or super()._strikes(name)

    disk = DeadDisk()
    history = History()
    driver = file_driver(tmp_path, disk=disk).__enter__()
    history.put(driver, ("a", b"1"))
    disk.dead = True
    for _ in range(3):
        error = history.put(driver, ("b", b"2"))
        assert error is not None
        assert error.code == "unavailable"
        driver.run(driver.space.recover())
        assert fault_code(driver) == "unavailable"
        assert driver.values() == {"a": b"1"}
    disk.dead = False
    driver.run(driver.space.recover())
    assert fault_code(driver) is None
    assert history.put(driver, ("c", b"3")) is None
    driver.kill()
    with file_driver(tmp_path) as driver:
        history.check(driver)


def test_a_failed_sync_during_a_checkpoint_loses_nothing(tmp_path: Path) -> None:
    """The new files must not be replaced by the older snapshot that the checkpoint is writing."""

    class HeldDisk(FaultyDisk):
        """Stops a checkpoint before its rename, until another one overtakes it or it is certain that none will."""

        held = False
        reached = threading.Event()
        overtaken = threading.Event()

        def rename(self, source: Path, target: Path) -> None:
            if target.name == "data.json":
                if self.held:
                    self.held = False
                    self.reached.set()
                    self.overtaken.wait(0.3)
                else:
                    self.overtaken.set()
            super().rename(source, target)

    disk = HeldDisk()
    driver = file_driver(tmp_path, disk=disk).__enter__()
    engine = driver.space
    assert isinstance(engine, FileSpace)
    driver.commit(("a", b"1"))
    disk.held = True

    async def begin() -> asyncio.Task[None]:
        task = asyncio.create_task(engine.volume.checkpoint())
        assert await asyncio.to_thread(disk.reached.wait, 10)
        return task

    checkpoint = driver.run(begin())
    driver.commit(("b", b"2"))
    disk.fail_next = "fdatasync"
    assert driver.try_commit(("c", b"3")) is not None
    assert disk.failed == "fdatasync"
    driver.commit(("d", b"4"))

    async def finish() -> None:
        await checkpoint

    driver.run(finish())
    driver.kill()
    with file_driver(tmp_path) as driver:
        assert (driver.space.revision, driver.values()) == (3, {"a": b"1", "b": b"2", "d": b"4"})


# A full disk --------------------------------------------------------------------------------------------------


class SmallDisk(FaultyDisk):
    """A disk with room for `quota` bytes in all files of `folder` together."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.quota = 1 << 40
        self._folder = folder

    def fill(self, left: int = 0) -> None:
        """Leave only this many bytes free."""
        self.quota = self._used() + left

    def _used(self) -> int:
        return sum(path.stat().st_size for path in self._folder.iterdir())

    def _fitting(self, file: int, data: bytes | memoryview, offset: int) -> bytes | memoryview:
        growth = offset + len(data) - os.fstat(file).st_size
        missing = growth - max(0, self.quota - self._used())
        if growth <= 0 or missing <= 0:
            return data
        if missing >= len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return data[: len(data) - missing]

    def write(self, file: int, data: bytes | memoryview) -> int:
        return super().write(file, self._fitting(file, data, os.fstat(file).st_size))

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        return super().pwrite(file, self._fitting(file, data, offset), offset)


def filled_store(folder: Path, values: dict[str, bytes]) -> tuple[SmallDisk, Driver, History]:
    disk = SmallDisk(folder)
    driver = file_driver(folder, disk=disk).__enter__()
    history = History()
    for key, value in values.items():
        assert history.put(driver, (key, value), alone=True) is None
    disk.fill()
    return disk, driver, history


SMALL_STORE = {"a": b"1", "b": b'"' + b"x" * 100_000 + b'"'}
LARGE_STORE = {"a": b"1", "b": LARGE}


@pytest.mark.parametrize("values", [SMALL_STORE, LARGE_STORE], ids=["small", "large"])
def test_a_full_disk_refuses_changes_that_do_not_fit_and_serves_the_rest(
    tmp_path: Path, values: dict[str, bytes]
) -> None:
    disk, driver, history = filled_store(tmp_path, values)
    for alone in (True, False):
        error = history.put(driver, ("c", LARGE * 20), alone=alone)
        assert error is not None
        assert (error.code, error.status) == ("storage_full", 507)
    assert fault_code(driver) == "storage_full"
    history.check(driver)
    driver.run(driver.space.recover())
    assert fault_code(driver) == "storage_full", "nothing proves that there is room"
    driver.kill()
    disk.quota = 1 << 40
    with file_driver(tmp_path) as driver:
        history.check(driver)


@pytest.mark.parametrize("values", [SMALL_STORE, LARGE_STORE], ids=["small", "large"])
@pytest.mark.parametrize("alone", [True, False])
def test_deletions_succeed_on_a_full_disk(tmp_path: Path, values: dict[str, bytes], *, alone: bool) -> None:
    _, driver, history = filled_store(tmp_path, values)
    history.put(driver, ("c", LARGE * 20))
    for key in values:
        assert history.put(driver, (key, None), alone=alone) is None
    driver.kill()
    with file_driver(tmp_path) as driver:
        assert driver.values() == {}
        history.check(driver)


def test_deletions_succeed_when_the_journal_itself_has_no_room_left(tmp_path: Path) -> None:
    disk, driver, history = filled_store(tmp_path, LARGE_STORE)
    value = b'"' + b"y" * 100_000 + b'"'
    refusals = 0
    for number in range(100):
        refusals += history.put(driver, (f"k{number}", value), alone=True) is not None
    assert 0 < refusals < 100
    stored = list(history.known.entries)
    assert history.put(driver, *((key, None) for key in stored), *((f"gone{n}", None) for n in range(2000))) is None
    assert disk.failed == ""
    driver.kill()
    with file_driver(tmp_path) as driver:
        history.check(driver)


def test_a_full_disk_is_used_again_after_space_is_freed(tmp_path: Path) -> None:
    disk, driver, history = filled_store(tmp_path, LARGE_STORE)
    assert history.put(driver, ("c", LARGE * 20)) is not None
    disk.quota = 1 << 40
    assert history.put(driver, ("c", LARGE * 20)) is None
    assert fault_code(driver) is None
    driver.kill()
    with file_driver(tmp_path) as driver:
        history.check(driver)


def test_a_store_started_on_a_full_disk_serves_reads_and_deletions(tmp_path: Path) -> None:
    disk, driver, history = filled_store(tmp_path, SMALL_STORE)
    disk.quota = 1 << 40
    assert history.put(driver, ("b", b"2"), ("c", SMALL_STORE["b"])) is None
    driver.kill()
    disk.fill()
    driver = file_driver(tmp_path, disk=disk).__enter__()
    history.check(driver)
    assert history.put(driver, ("d", LARGE * 20)) is not None
    assert fault_code(driver) == "storage_full"
    assert history.put(driver, ("c", None)) is None
    driver.kill()
    with file_driver(tmp_path) as driver:
        history.check(driver)


def test_a_used_reserve_is_created_again_after_space_is_freed(tmp_path: Path) -> None:
    disk, driver, history = filled_store(tmp_path, SMALL_STORE)
    reserve = tmp_path / "data.json.reserve"
    assert reserve.stat().st_size == RESERVE_BYTES
    disk.fill()
    assert history.put(driver, ("a", None), alone=True) is None
    assert not reserve.exists()
    assert fault_code(driver) == "storage_full"
    disk.fill()
    driver.run(driver.space.recover())
    assert fault_code(driver) == "storage_full"
    disk.quota = 1 << 40
    driver.run(driver.space.recover())
    assert fault_code(driver) is None
    assert reserve.stat().st_size == RESERVE_BYTES
    driver.kill()
