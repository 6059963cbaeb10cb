"""Every file operation may fail. Afterwards everything acknowledged is there, and no answer was wrong.

`FaultyDisk` lets one operation fail, or do only a part of a write. It counts syncs instead of doing them, because the
kernel keeps the data of a process that ends. A sync that fails loses the unsynced data, as on Linux, and later use of
that file is recorded.
"""

import copy
import errno
import itertools
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path

from driving import Driver, FrozenClock, file_driver
from structlog.testing import capture_logs

from harness import Finding
from harness.contents import BATCH, QUIET, Contents, batch_for, in_memory, random_way, small_sizes, try_commit
from leasehold.engines.file.disk import Identity, OsDisk
from leasehold.engines.file.records import encode_record
from leasehold.engines.file.space import FileSpace
from leasehold.errors import ServiceError
from leasehold.model import Change, Deletion, Entry

LEAST_OPERATIONS = 200
"""The fewest operations of a run. A shorter run proves little."""
MOST_VIOLATIONS = 5
"""A round ends after this many violations, because they are usually of one kind."""


class Fault(Enum):
    """What happens to one operation."""

    EIO = "EIO"
    ENOSPC = "ENOSPC"
    SHORT = "short"
    """A write takes a part of the data, and reports that."""
    LATE = "EIO, though done"
    """The operation is done and then raises; a write is done in part."""

    @property
    def error(self) -> OSError:
        number = errno.ENOSPC if self is Fault.ENOSPC else errno.EIO
        return OSError(number, os.strerror(number))

    def can_strike(self, operation: str) -> bool:
        return self is not Fault.SHORT or operation in WRITES

    def is_worth_a_run(self, operation: str) -> bool:
        """Whether it can strike there. LATE at an operation that changes nothing would be EIO again."""
        return self.can_strike(operation) and (self is not Fault.LATE or operation in CHANGES)


WRITES = frozenset({"write", "pwrite"})
CHANGES = WRITES | {"create", "fsync", "fdatasync", "rename", "link", "truncate", "unlink", "sync_folder"}
OTHERS = frozenset({"open", "lock", "read", "close", "names", "identity", "identity_of"})


class FaultyDisk(OsDisk):
    """Operation number `fail_at` meets with `fault`."""

    def __init__(self, fail_at: int = -1, fault: Fault = Fault.EIO) -> None:
        self.names_used: list[str] = []
        self.fail_at = fail_at
        self.fail_next = ""
        """The next operation with this name fails."""
        self.fault = fault
        self.failed = ""
        """The operation that failed, or None until then."""
        self.used_after_failed_sync: list[str] = []
        self._counting = threading.Lock()
        """The engine uses two threads."""
        self._positions: dict[int, int] = {}
        self._unsynced: dict[int, list[tuple[int, int]]] = {}
        self._spoiled: set[int] = set()

    @property
    def operations(self) -> int:
        return len(self.names_used)

    def _strikes(self, name: str) -> bool:
        with self._counting:
            self.names_used.append(name)
            is_due = self.operations - 1 == self.fail_at or name == self.fail_next
            if not is_due or not self.fault.can_strike(name):
                return False
            self.fail_next = ""
            self.failed = name
            return True

    def _note_use(self, name: str, file: int) -> None:
        if file in self._spoiled:
            self.used_after_failed_sync.append(name)

    def create(self, path: Path) -> int:
        strikes = self._strikes("create")
        if strikes and self.fault is not Fault.LATE:
            raise self.fault.error
        file = super().create(path)
        if strikes:
            super().close(file)
            raise self.fault.error
        self._positions[file] = 0
        return file

    def open(self, path: Path, *, writable: bool = False) -> int:
        if self._strikes("open"):
            raise self.fault.error
        return super().open(path, writable=writable)

    def lock(self, path: Path) -> int:
        if self._strikes("lock"):
            raise self.fault.error
        return super().lock(path)

    def read(self, file: int, size: int) -> bytes:
        if self._strikes("read"):
            raise self.fault.error
        return super().read(file, size)

    def write(self, file: int, data: bytes | memoryview) -> int:
        offset = self._positions[file]
        written = self._write("write", file, data, offset)
        self._positions[file] = offset + written
        return written

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        return self._write("pwrite", file, data, offset)

    def _write(self, name: str, file: int, data: bytes | memoryview, offset: int) -> int:
        self._note_use(name, file)
        strikes = self._strikes(name)
        if strikes and self.fault not in (Fault.SHORT, Fault.LATE):
            raise self.fault.error
        taken = data[: max(1, len(data) // 2)] if strikes else data
        self._unsynced.setdefault(file, []).append((offset, len(taken)))
        written = super().pwrite(file, taken, offset)
        if strikes and self.fault is Fault.LATE:
            raise self.fault.error
        return written

    def truncate(self, file: int, size: int) -> None:
        self._note_use("truncate", file)
        strikes = self._strikes("truncate")
        if not strikes or self.fault is Fault.LATE:
            super().truncate(file, size)
        if strikes:
            raise self.fault.error

    def fsync(self, file: int) -> None:
        self._sync("fsync", file)

    def fdatasync(self, file: int) -> None:
        self._sync("fdatasync", file)

    def _sync(self, name: str, file: int) -> None:
        self._note_use(name, file)
        unsynced = self._unsynced.pop(file, [])
        if not self._strikes(name):
            return
        self._spoiled.add(file)
        if self.fault is not Fault.LATE:
            end = os.fstat(file).st_size
            for offset, size in unsynced:
                super().pwrite(file, bytes(max(0, min(size, end - offset))), offset)
        raise self.fault.error

    def close(self, file: int) -> None:
        super().close(file)
        self._spoiled.discard(file)
        self._unsynced.pop(file, None)
        if self._strikes("close"):
            raise self.fault.error

    def rename(self, source: Path, target: Path) -> None:
        strikes = self._strikes("rename")
        if not strikes or self.fault is Fault.LATE:
            super().rename(source, target)
        if strikes:
            raise self.fault.error

    def link(self, source: Path, target: Path) -> None:
        strikes = self._strikes("link")
        if not strikes or self.fault is Fault.LATE:
            super().link(source, target)
        if strikes:
            raise self.fault.error

    def unlink(self, path: Path) -> None:
        strikes = self._strikes("unlink")
        if not strikes or self.fault is Fault.LATE:
            super().unlink(path)
        if strikes:
            raise self.fault.error

    def sync_folder(self, folder: Path) -> None:  # noqa: ARG002
        if self._strikes("sync_folder"):
            raise self.fault.error

    def names(self, folder: Path) -> list[str]:
        if self._strikes("names"):
            raise self.fault.error
        return super().names(folder)

    def identity(self, path: Path) -> Identity | None:
        if self._strikes("identity"):
            raise self.fault.error
        return super().identity(path)

    def identity_of(self, file: int) -> Identity:
        if self._strikes("identity_of"):
            raise self.fault.error
        return super().identity_of(file)


# What a caller knows ------------------------------------------------------------------------------------------


class Broken(AssertionError):  # noqa: N818  names a broken promise, not an error of the harness
    """The store broke a promise."""


class History:
    """What a caller knows of a store: its contents, or after an unknown outcome the two possible contents."""

    def __init__(self) -> None:
        self.known = Contents()
        self.maybe: Contents | None = None
        self.answers: Counter[str] = Counter()

    def copy(self) -> "History":
        other = History()
        other.known, other.maybe, other.answers = self.known, self.maybe, Counter(self.answers)
        return other

    def put(self, driver: Driver, *batch: tuple[str, bytes | None], alone: bool = False) -> ServiceError | None:
        """Commit values by key. None removes the key."""
        changes: list[Change] = []
        for number, (key, value) in enumerate(batch, start=self.known.revision + 1):
            changes.append(Deletion(key, number) if value is None else Entry(key, value, number, 1, 1))
        return self.commit(driver, changes, QUIET if alone else BATCH)

    def commit(self, driver: Driver, changes: Sequence[Change], way: str) -> ServiceError | None:
        """Commit, and record what the answer means."""
        after = self.known.after(changes)
        error = try_commit(driver, changes, way)
        if error is None:
            self.known, self.maybe = after, None
            self.answers["acknowledged"] += 1
        elif error.code == "unavailable" and "may or may not" in error.message:
            self.maybe = after
            self.answers["unknown"] += 1
        elif error.code in ("unavailable", "storage_full"):
            self.answers["refused"] += 1
        else:
            raise Broken(f"an error for a change without a fault: {error.code}")
        return error

    def check(self, driver: Driver) -> None:
        """Compare a store that was just opened with what is known. Its contents are known from then on."""
        found = in_memory(driver)
        if found not in (self.known, self.maybe):
            raise Broken(f"{found} instead of {self.known}" + (f" or {self.maybe}" if self.maybe else ""))
        self.known, self.maybe = found, None

    def check_memory(self, driver: Driver) -> None:
        """Check that readers see exactly what was acknowledged, whatever the disk contains."""
        found = in_memory(driver)
        if found != self.known:
            raise Broken(f"readers see {found} instead of {self.known}")


# Runs ---------------------------------------------------------------------------------------------------------


def open_again(folder: Path, disk: FaultyDisk) -> Driver:
    """Start again. A start that meets the fault may be refused; the next one must succeed."""
    if not disk.failed:
        with suppress(ServiceError):
            return file_driver(folder, disk=disk).__enter__()
        if not disk.failed:
            raise Broken("the start was refused without a fault")
    return file_driver(folder, disk=disk).__enter__()


def live(folder: Path, disk: FaultyDisk, history: History, rng: random.Random) -> None:
    """A process from its start to its end. After a refusal it may end at once, before it has written new files."""
    driver = open_again(folder, disk)
    try:
        history.check(driver)
        is_refused = not work(driver, disk, history, rng)
        if not is_refused:
            recover(driver)
    except BaseException:
        driver.kill()
        raise
    end = "kill" if is_refused else rng.choice(["kill", "kill while appending", "stop"])
    if end == "kill":
        driver.kill()
    elif end == "stop":
        stop(driver, disk)
    else:
        kill_while_appending(driver, folder, history)


def stop(driver: Driver, disk: FaultyDisk) -> None:
    """Stop in order. If the last checkpoint meets the fault, that is reported; the next start reads everything."""
    had_failed = bool(disk.failed)
    try:
        driver.__exit__(None, None, None)
    except ServiceError as error:
        if had_failed or not disk.failed:
            raise Broken(f"it ended with an error without a fault: {error.message}") from error


def recover(driver: Driver) -> None:
    assert isinstance(driver.space, FileSpace)
    driver.run(driver.space.volume.rest())  # a checkpoint in the background may be about to meet the fault
    driver.run(driver.space.recover())
    if driver.space.fault is not None:
        raise Broken("the fault is over, but the engine still reports it")


def work(driver: Driver, disk: FaultyDisk, history: History, rng: random.Random) -> bool:
    """Commits and checkpoints. Returns False if it ended with a refusal."""
    clock = FrozenClock()
    for _ in range(12):
        clock.now += rng.randrange(10**6)
        if rng.random() < 0.15:
            assert isinstance(driver.space, FileSpace)
            driver.run(driver.space.volume.checkpoint())
        else:
            way = random_way(rng)
            error = history.commit(driver, batch_for(rng, way, history.known, clock.now), way)
            if error is not None and not disk.failed:
                raise Broken(f"refused without a fault: {error.message}")
            if error is not None and rng.random() < 0.5:
                return False
        history.check_memory(driver)
    return True


def kill_while_appending(driver: Driver, folder: Path, history: History) -> None:
    """The end of a process in the middle of writing a record."""
    engine = driver.space
    assert isinstance(engine, FileSpace)
    driver.run(engine.volume.rest())  # a checkpoint in the background may be about to rename the journal
    assert engine.volume.storage is not None
    journal = engine.volume.storage._journals.current
    end = None if journal is None else journal.end
    driver.kill()
    if end is not None:
        revision = history.known.revision + 1
        record = encode_record(revision, [Entry("torn", b"1", revision, 1, 1)])
        if not (folder / "data.json.journal").exists():
            raise Broken("the journal in use has lost its name")
        with (folder / "data.json.journal").open("r+b") as file:
            file.seek(end)
            file.write(record[: len(record) // 2])


class Course:
    """Processes on the files in `folder`, one after another. `rng` decides what they do."""

    def __init__(
        self, folder: Path, rng: random.Random, history: History, *, lives: int = 0, operations: int = 0
    ) -> None:
        self.lives = lives
        self.operations = operations
        """Those of all lives so far."""
        self.history = history
        self._folder = folder
        self._rng = rng

    def live(self, disk: FaultyDisk) -> None:
        before = disk.operations
        live(self._folder, disk, self.history, self._rng)
        self.lives += 1
        self.operations += disk.operations - before

    def branch(self, folder: Path) -> "Course":
        """Another course in a new folder, which has been the same up to now, and will be if its disk is."""
        shutil.copytree(self._folder, folder)
        return Course(folder, copy.copy(self._rng), self.history.copy(), lives=self.lives, operations=self.operations)

    def end(self) -> None:
        """Check the files, and remove them."""
        with file_driver(self._folder, disk=FaultyDisk()) as driver:
            self.history.check(driver)
        shutil.rmtree(self._folder)


def survive_disk_faults(
    folder: Path, seed: int, *, faults: Sequence[Fault] = tuple(Fault), at: Collection[str] = CHANGES | OTHERS
) -> Finding:
    """Run once without a fault, and then again and again, each time with another operation that fails.

    `at`: the names of the operations that fail.
    """
    finding = Finding()
    undisturbed = FaultyDisk()
    with capture_logs(), small_sizes(random.Random(seed)):
        (folder / "undisturbed").mkdir()
        course = Course(folder / "undisturbed", random.Random(seed), History())
        starts: list[Course] = []
        """Before each life. A run with a fault begins there, because the lives before are the same without it."""
        while course.operations < LEAST_OPERATIONS:
            starts.append(course.branch(folder / f"life-{course.lives}"))
            course.live(undisturbed)
        course.end()
        for fault, (number, name) in itertools.product(faults, enumerate(undisturbed.names_used)):
            if name in at and fault.is_worth_a_run(name):
                start = [each for each in starts if each.operations <= number][-1]
                again = start.branch(folder / f"{fault.name}-{number}")
                finding.add(_run_with_fault(again, course.lives, number, fault))
            if len(finding.violations) >= MOST_VIOLATIONS:
                break
    return finding


def _run_with_fault(course: Course, lives: int, number: int, fault: Fault) -> Finding:
    """Let this operation fail, which comes in the next life. Go on until there were this many lives."""
    finding = Finding()
    disk = FaultyDisk(number - course.operations, fault)
    where = f"{fault.value} at operation {number}"
    try:
        while course.lives < lives:
            course.live(disk)
        course.end()
    except (Broken, ServiceError) as error:
        finding.violations.append(f"{where} ({disk.failed}): {error}")
        return finding
    if disk.used_after_failed_sync:
        used = " and ".join(sorted(set(disk.used_after_failed_sync)))
        finding.violations.append(f"{where} ({disk.failed}): {used} of a file after its sync had failed")
    answers = course.history.answers
    finding.figures.update({"runs": 1, "operations": course.operations, f"faults of {disk.failed or 'nothing'}": 1})
    finding.figures.update({f"answers '{answer}'": count for answer, count in answers.items()})
    return finding
