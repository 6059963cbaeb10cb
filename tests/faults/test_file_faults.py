"""Every file operation may fail. What was acknowledged is there afterwards, and no answer was false.

`FaultyDisk` fails one operation, or has only so much room, or takes part of a write. It counts syncs instead of doing
them (a process that ends loses nothing that the kernel has), but a sync that it lets fail loses what was not yet
synced, as Linux does, and it notes whoever uses that file again.
"""

import asyncio
import errno
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from driving import Driver, file_driver

from leasehold.engines.disk import OsDisk
from leasehold.engines.file import FileEngine
from leasehold.engines.storage import RESERVE_BYTES
from leasehold.errors import ServiceError

LARGE = b'"' + b"x" * 300_000 + b'"'
"""A store with it is too large for being written anew by each commit."""

SHORT = 0
"""In place of an error: half of a write is taken."""


class FaultyDisk(OsDisk):
    """The operation number `fail_at` fails with `error`."""

    def __init__(self, fail_at: int = -1, error: int = errno.EIO) -> None:
        self.names_used: list[str] = []
        self.fail_at = fail_at
        self.error = error
        self.failed = ""
        """The operation that failed, once it did."""
        self.used_after_failed_sync: list[str] = []
        self._unsynced: dict[int, list[tuple[int, int]]] = {}
        self._spoiled: set[int] = set()

    @property
    def operations(self) -> int:
        return len(self.names_used)

    def _strikes(self, name: str) -> bool:
        self.names_used.append(name)
        if self.operations - 1 != self.fail_at:
            return False
        self.failed = name
        return True

    def _maybe_fail(self, name: str) -> None:
        if self._strikes(name) and self.error != SHORT:
            raise OSError(self.error, os.strerror(self.error))

    def _take(self, name: str, file: int, data: bytes | memoryview) -> bytes | memoryview:
        if file in self._spoiled:
            self.used_after_failed_sync.append(name)
        if not self._strikes(name):
            return data
        if self.error != SHORT:
            raise OSError(self.error, os.strerror(self.error))
        return data[: max(1, len(data) // 2)]

    def _sync(self, name: str, file: int) -> None:
        if file in self._spoiled:
            self.used_after_failed_sync.append(name)
        unsynced = self._unsynced.pop(file, [])
        if not self._strikes(name) or self.error == SHORT:
            return
        self._spoiled.add(file)
        for offset, size in unsynced:
            super().pwrite(file, bytes(size), offset)
        raise OSError(self.error, os.strerror(self.error))

    def create(self, path: Path) -> int:
        self._maybe_fail("create")
        return super().create(path)

    def open(self, path: Path, *, writable: bool = False) -> int:
        self._maybe_fail("open")
        return super().open(path, writable=writable)

    def lock(self, path: Path) -> int:
        self._maybe_fail("lock")
        return super().lock(path)

    def read(self, file: int, size: int) -> bytes:
        self._maybe_fail("read")
        return super().read(file, size)

    def write(self, file: int, data: bytes | memoryview) -> int:
        return super().write(file, self._take("write", file, data))

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        taken = self._take("pwrite", file, data)
        self._unsynced.setdefault(file, []).append((offset, len(taken)))
        return super().pwrite(file, taken, offset)

    def truncate(self, file: int, size: int) -> None:
        self._maybe_fail("truncate")
        super().truncate(file, size)

    def fsync(self, file: int) -> None:
        self._sync("fsync", file)

    def fdatasync(self, file: int) -> None:
        self._sync("fdatasync", file)

    def close(self, file: int) -> None:
        super().close(file)
        self._spoiled.discard(file)
        self._maybe_fail("close")

    def rename(self, source: Path, target: Path) -> None:
        self._maybe_fail("rename")
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._maybe_fail("unlink")
        super().unlink(path)

    def sync_folder(self, folder: Path) -> None:  # noqa: ARG002
        self._maybe_fail("sync_folder")

    def names(self, folder: Path) -> list[str]:
        self._maybe_fail("names")
        return super().names(folder)


class History:
    """What a caller knows of a store: what it must hold, or, after an unknown outcome, what else it may hold."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.revision = 0
        self.maybe: tuple[int, dict[str, bytes]] | None = None

    def commit(self, driver: Driver, *batch: tuple[str, bytes | None], alone: bool = False) -> ServiceError | None:
        """Commit, and note what the answer means."""
        after = dict(self.stored)
        for key, value in batch:
            if value is None:
                after.pop(key, None)
            else:
                after[key] = value
        error = driver.try_commit(*batch, alone=alone)
        if error is None:
            self.stored, self.revision, self.maybe = after, self.revision + len(batch), None
        elif error.code == "unavailable":
            self.maybe = (self.revision + len(batch), after)
        else:
            assert error.code == "storage_full"
        return error

    def check(self, driver: Driver) -> None:
        """Hold the store against what is known, then know what it says."""
        found = (driver.engine.revision, driver.values())
        assert found in (
            [(self.revision, self.stored)] if self.maybe is None else [(self.revision, self.stored), self.maybe]
        )
        self.revision, self.stored = found
        self.maybe = None


def open_again(folder: Path, disk: FaultyDisk) -> Driver:
    """A start that met the fault is refused; the next one must succeed."""
    if not disk.failed:
        with suppress(ServiceError):
            return file_driver(folder, disk=disk).__enter__()
        assert disk.failed, "refused without a fault"
    return file_driver(folder, disk=disk).__enter__()


def fault_code(driver: Driver) -> str | None:
    fault = driver.engine.fault
    return None if fault is None else fault.code


ALONE, BATCH, CHECKPOINT = "alone", "batch", "checkpoint"
Step = tuple[str, list[tuple[str, bytes | None]]]


def work(folder: Path, disk: FaultyDisk, large: bytes) -> History:
    """Hundreds of file operations, of every kind that the engine makes: every mode, checkpoints and restarts."""
    history = History()
    for life in range(3):
        driver = open_again(folder, disk)
        history.check(driver)
        steps: list[Step] = [
            (ALONE, [("a", b"%d" % life)]),
            (BATCH, [("b", b"1"), ("c", b"2")]),
            (BATCH, [("b", None)]),
            (BATCH, [("d", large), ("a", b"3")]),
            (ALONE, [("e", b"4")]),
            (CHECKPOINT, []),
            (BATCH, [("c", None), ("f", b"5")]),
            (ALONE, [("d", None)]),
            (ALONE, [("g", b"6")]),
        ]
        for step in steps:
            take_step(driver, history, step, disk)
        driver.run(driver.engine.recover())
        assert fault_code(driver) is None, "the one fault has passed, but the engine has not seen that"
        if life == 1:
            driver.__exit__(None, None, None)
        else:
            driver.kill()
    return history


def take_step(driver: Driver, history: History, step: Step, disk: FaultyDisk) -> None:
    way, batch = step
    if way == CHECKPOINT:
        assert isinstance(driver.engine, FileEngine)
        driver.run(driver.engine.checkpoint())
    else:
        refusal = history.commit(driver, *batch, alone=way == ALONE)
        assert refusal is None or disk.failed, "refused without a fault"
    # Memory shows what was acknowledged, whatever the disk may hold.
    assert (driver.engine.revision, driver.values()) == (history.revision, history.stored)


@pytest.mark.parametrize("large", [b"7", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, SHORT], ids=["EIO", "ENOSPC", "short"])
def test_any_single_operation_may_fail(tmp_path: Path, error: int, large: bytes) -> None:
    undisturbed = FaultyDisk()
    (tmp_path / "undisturbed").mkdir()
    work(tmp_path / "undisturbed", undisturbed, large)
    assert undisturbed.operations >= 200, "the run is too short to prove anything"
    writes = {"write", "pwrite"}
    others = {"create", "fsync", "fdatasync", "close", "rename", "unlink", "sync_folder"}
    struck: set[str] = set()
    for number, name in enumerate(undisturbed.names_used):
        if error == SHORT and name not in writes:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        disk = FaultyDisk(number, error)
        history = work(folder, disk, large)
        struck.add(disk.failed)
        assert disk.used_after_failed_sync == []
        with file_driver(folder, disk=FaultyDisk()) as driver:
            history.check(driver)
        shutil.rmtree(folder)
    assert struck >= (writes if error == SHORT else writes | others)


def test_a_batch_of_unknown_outcome_never_comes_back_once_later_ones_are_acknowledged(tmp_path: Path) -> None:
    disk = FaultyDisk()
    history = History()
    driver = file_driver(tmp_path, disk=disk).__enter__()
    history.commit(driver, ("a", b"1"))
    disk.fail_at = disk.operations + 1
    error = history.commit(driver, ("a", b"unknown"), ("b", b"unknown"))
    assert disk.failed == "fdatasync"
    assert error is not None
    assert (error.code, error.message) == ("unavailable", "the change may or may not have been stored")
    assert history.commit(driver, ("c", b"2")) is None
    driver.kill()
    with file_driver(tmp_path) as driver:
        assert (driver.engine.revision, driver.values()) == (2, {"a": b"1", "c": b"2"})


def test_the_fault_lasts_as_long_as_the_disk_fails(tmp_path: Path) -> None:
    class DeadDisk(FaultyDisk):
        dead = False

        def _strikes(self, name: str) -> bool:
            return self.dead or super()._strikes(name)

    disk = DeadDisk()
    history = History()
    driver = file_driver(tmp_path, disk=disk).__enter__()
    history.commit(driver, ("a", b"1"))
    disk.dead = True
    for _ in range(3):
        error = history.commit(driver, ("b", b"2"))
        assert error is not None
        assert error.code == "unavailable"
        driver.run(driver.engine.recover())
        assert fault_code(driver) == "unavailable"
        assert driver.values() == {"a": b"1"}
    disk.dead = False
    driver.run(driver.engine.recover())
    assert fault_code(driver) is None
    assert history.commit(driver, ("c", b"3")) is None
    driver.kill()
    with file_driver(tmp_path) as driver:
        history.check(driver)


def test_a_failed_sync_during_a_checkpoint_loses_nothing(tmp_path: Path) -> None:
    """The fresh start must not be overtaken by the older snapshot that the checkpoint is writing."""

    class HeldDisk(FaultyDisk):
        """Holds a checkpoint right before its rename, until another one overtakes it or clearly will not."""

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
    engine = driver.engine
    assert isinstance(engine, FileEngine)
    driver.commit(("a", b"1"))
    disk.held = True

    async def begin() -> asyncio.Task[None]:
        task = asyncio.create_task(engine.checkpoint())
        assert await asyncio.to_thread(disk.reached.wait, 10)
        return task

    checkpoint = driver.run(begin())
    driver.commit(("b", b"2"))
    disk.fail_at = disk.operations + 1
    assert driver.try_commit(("c", b"3")) is not None
    assert disk.failed == "fdatasync"
    driver.commit(("d", b"4"))

    async def finish() -> None:
        await checkpoint

    driver.run(finish())
    driver.kill()
    with file_driver(tmp_path) as driver:
        assert (driver.engine.revision, driver.values()) == (3, {"a": b"1", "b": b"2", "d": b"4"})


# A full disk --------------------------------------------------------------------------------------------------


class SmallDisk(FaultyDisk):
    """Has room for `quota` bytes in all files of `folder` together."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.quota = 1 << 40
        self._folder = folder

    def fill(self, left: int = 0) -> None:
        """Leave only so many bytes."""
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
        assert history.commit(driver, (key, value), alone=True) is None
    disk.fill()
    return disk, driver, history


SMALL_STORE = {"a": b"1", "b": b'"' + b"x" * 100_000 + b'"'}
LARGE_STORE = {"a": b"1", "b": LARGE}


@pytest.mark.parametrize("values", [SMALL_STORE, LARGE_STORE], ids=["small", "large"])
def test_a_full_disk_refuses_what_does_not_fit_and_serves_the_rest(tmp_path: Path, values: dict[str, bytes]) -> None:
    disk, driver, history = filled_store(tmp_path, values)
    for alone in (True, False):
        error = history.commit(driver, ("c", LARGE * 20), alone=alone)
        assert error is not None
        assert (error.code, error.status) == ("storage_full", 507)
    assert fault_code(driver) == "storage_full"
    history.check(driver)
    driver.run(driver.engine.recover())
    assert fault_code(driver) == "storage_full", "nothing proves that there is room"
    driver.kill()
    disk.quota = 1 << 40
    with file_driver(tmp_path) as driver:
        history.check(driver)


@pytest.mark.parametrize("values", [SMALL_STORE, LARGE_STORE], ids=["small", "large"])
@pytest.mark.parametrize("alone", [True, False])
def test_deletions_get_through_on_a_full_disk(tmp_path: Path, values: dict[str, bytes], *, alone: bool) -> None:
    _, driver, history = filled_store(tmp_path, values)
    history.commit(driver, ("c", LARGE * 20))
    for key in values:
        assert history.commit(driver, (key, None), alone=alone) is None
    driver.kill()
    with file_driver(tmp_path) as driver:
        assert driver.values() == {}
        history.check(driver)


def test_deletions_get_through_when_the_journal_itself_has_no_room_left(tmp_path: Path) -> None:
    disk, driver, history = filled_store(tmp_path, LARGE_STORE)
    value = b'"' + b"y" * 100_000 + b'"'
    refusals = 0
    for number in range(100):
        refusals += history.commit(driver, (f"k{number}", value), alone=True) is not None
    assert 0 < refusals < 100
    stored = list(history.stored)
    assert history.commit(driver, *((key, None) for key in stored), *((f"gone{n}", None) for n in range(2000))) is None
    assert disk.failed == ""
    driver.kill()
    with file_driver(tmp_path) as driver:
        history.check(driver)


def test_a_full_disk_is_used_again_when_space_returns(tmp_path: Path) -> None:
    disk, driver, history = filled_store(tmp_path, LARGE_STORE)
    assert history.commit(driver, ("c", LARGE * 20)) is not None
    disk.quota = 1 << 40
    assert history.commit(driver, ("c", LARGE * 20)) is None
    assert fault_code(driver) is None
    driver.kill()
    with file_driver(tmp_path) as driver:
        history.check(driver)


def test_a_start_on_a_full_disk_serves_reads_and_deletions(tmp_path: Path) -> None:
    disk, driver, history = filled_store(tmp_path, SMALL_STORE)
    disk.quota = 1 << 40
    assert history.commit(driver, ("b", b"2"), ("c", SMALL_STORE["b"])) is None
    driver.kill()
    disk.fill()
    driver = file_driver(tmp_path, disk=disk).__enter__()
    history.check(driver)
    assert history.commit(driver, ("d", LARGE * 20)) is not None
    assert fault_code(driver) == "storage_full"
    assert history.commit(driver, ("c", None)) is None
    driver.kill()
    with file_driver(tmp_path) as driver:
        history.check(driver)


def test_a_spent_reserve_is_made_again_when_space_returns(tmp_path: Path) -> None:
    disk, driver, history = filled_store(tmp_path, SMALL_STORE)
    reserve = tmp_path / "data.json.reserve"
    assert reserve.stat().st_size == RESERVE_BYTES
    disk.fill()
    assert history.commit(driver, ("a", None), alone=True) is None
    assert not reserve.exists()
    assert fault_code(driver) == "storage_full"
    disk.fill()
    driver.run(driver.engine.recover())
    assert fault_code(driver) == "storage_full"
    disk.quota = 1 << 40
    driver.run(driver.engine.recover())
    assert fault_code(driver) is None
    assert reserve.stat().st_size == RESERVE_BYTES
    driver.kill()
