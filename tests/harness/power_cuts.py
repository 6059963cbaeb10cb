"""After a kill or a power cut, a start finds everything that was acknowledged, and maybe the change in progress.

`MemoryDisk` models what a real disk keeps: the data of a file is safe only after a sync of the file, and a name only
after a sync of the folder. Of everything else a cut keeps any part in any order, by sectors and by names. The start
after a cut is cut too, because readers may have seen what it found. Further processes start from what a cut left.
"""

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from driving import Driver, FrozenClock, file_driver
from structlog.testing import capture_logs

from harness import Finding
from harness.contents import (
    Contents,
    batch_for,
    in_files,
    in_memory,
    random_way,
    small_sizes,
    try_commit,
    with_receipts,
)
from leasehold.engines.file.disk import Identity
from leasehold.engines.file.space import FileSpace
from leasehold.engines.file.storage import Storage
from leasehold.engines.memory.state import State
from leasehold.errors import ServiceError
from leasehold.model import Receipt, ReceiptEnd

FOLDER = Path("/store")
DATA = FOLDER / "data.json"
SECTOR_BYTES = 512
MOST_VIOLATIONS = 20
"""A round ends after this many violations, because they are usually of one kind."""

T = TypeVar("T")


class PowerCutError(BaseException):
    """The machine is off. No `except` of the engine may catch this."""


class Content:
    """A file: what the kernel has, what the disk certainly has, and the writes in between."""

    def __init__(self, durable: bytes = b"") -> None:
        self.current = bytearray(durable)
        self._durable = durable
        self._unsynced: list[tuple[int, bytes]] = []
        """Writes with their offsets. A change of the size is `(size, b"")`."""

    def write(self, offset: int, data: bytes) -> None:
        _apply_write(self.current, offset, data)
        self._unsynced.append((offset, data))

    def sync(self) -> None:
        if self._unsynced:
            self._durable = bytes(self.current)
            self._unsynced = []

    @property
    def identity(self) -> Identity:
        return Identity(0, id(self), len(self.current), 0)

    def copy(self) -> "Content":
        copy = Content(self._durable)
        copy.current = bytearray(self.current)
        copy._unsynced = list(self._unsynced)
        return copy

    def after_cut(self, chance: random.Random) -> bytes:
        if not self._unsynced:
            return self._durable
        kept = bytearray(self._durable)
        for offset, data in _survivors([sector for write in self._unsynced for sector in _sectors(*write)], chance):
            _apply_write(kept, offset, data)
        return bytes(kept)


def _apply_write(content: bytearray, offset: int, data: bytes) -> None:
    if not data:
        del content[offset:]
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    if not data:
        yield offset, data
    position = 0
    while position < len(data):
        size = SECTOR_BYTES - (offset + position) % SECTOR_BYTES
        yield offset + position, data[position : position + size]
        position += size


def _survivors(items: list[T], chance: random.Random) -> list[T]:
    """None, all, the first ones, or a random choice. The extremes are the most likely to reveal a bug."""
    way = chance.randrange(4)
    if way == 0:
        return []
    if way == 1:
        return items
    if way == 2:
        return items[: chance.randrange(len(items) + 1)]
    return [item for item in items if chance.random() < 0.5]


class MemoryDisk:
    """A folder in memory. `deaf`: syncs that it only pretends to do, to check that this is detected."""

    def __init__(self, files: dict[str, bytes], *, deaf: frozenset[str] = frozenset()) -> None:
        self._names = {name: Content(data) for name, data in files.items()}
        self._durable_names = dict(self._names)
        self._unsynced_names: list[dict[str, Content | None]] = []
        """What each operation did to the names, in full or not at all."""
        self._open: dict[int, tuple[Content, int]] = {}
        """Contents and positions by descriptor."""
        self._locks: dict[str, int] = {}
        self._deaf = deaf
        self._last_file = 0
        self._turn = threading.RLock()
        """An operation and its cuts are atomic, because the engine uses two threads."""
        self.operations = 0
        self.cut_at = -1
        self.watcher: PowerCuts | None = None

    def after_cut(self, chance: random.Random) -> "MemoryDisk":
        """The same disk after the power has returned."""
        names: dict[str, Content | None] = dict(self._durable_names)
        for change in _survivors(self._unsynced_names, chance):
            names.update(change)
        kept = {name: content.after_cut(chance) for name, content in names.items() if content is not None}
        return MemoryDisk(kept, deaf=self._deaf)

    def after_kill(self) -> "MemoryDisk":
        """The same disk for another process: the kernel keeps everything, also unsynced data."""
        every_name: list[Mapping[str, Content | None]] = [self._names, self._durable_names, *self._unsynced_names]
        contents = {id(content): content for names in every_name for content in names.values() if content is not None}
        copies = {number: content.copy() for number, content in contents.items()}
        disk = MemoryDisk({}, deaf=self._deaf)
        disk._names = {name: copies[id(content)] for name, content in self._names.items()}
        disk._durable_names = {name: copies[id(content)] for name, content in self._durable_names.items()}
        disk._unsynced_names = [
            {name: None if content is None else copies[id(content)] for name, content in change.items()}
            for change in self._unsynced_names
        ]
        return disk

    def _step(self) -> None:
        if 0 <= self.cut_at <= self.operations:
            raise PowerCutError
        self.operations += 1
        if self.watcher is not None:
            self.watcher.cut(self)

    def _content(self, path: Path) -> Content:
        if path.name not in self._names:
            raise FileNotFoundError(2, "No such file or directory")
        return self._names[path.name]

    def _descriptor(self, content: Content) -> int:
        self._last_file += 1
        self._open[self._last_file] = (content, 0)
        return self._last_file

    def _rename(self, change: dict[str, Content | None]) -> None:
        self._unsynced_names.append(change)
        for name, content in change.items():
            if content is None:
                self._names.pop(name, None)
            else:
                self._names[name] = content

    def create(self, path: Path) -> int:
        with self._turn:
            self._step()
            if path.name in self._names:
                raise FileExistsError(17, "File exists")
            self._rename({path.name: Content()})
            return self._descriptor(self._names[path.name])

    def open(self, path: Path, *, writable: bool = False) -> int:  # noqa: ARG002
        return self._descriptor(self._content(path))

    def lock(self, path: Path) -> int:
        if path.name in self._locks:
            raise BlockingIOError
        file = self._descriptor(self._names.setdefault(path.name, Content()))
        self._locks[path.name] = file
        return file

    def lock_shared(self, path: Path) -> int:
        return self.lock(path)

    def read(self, file: int, size: int) -> bytes:
        content, position = self._open[file]
        data = bytes(content.current[position : position + size])
        self._open[file] = (content, position + len(data))
        return data

    def write(self, file: int, data: bytes | memoryview) -> int:
        content, position = self._open[file]
        self._open[file] = (content, position + len(data))
        return self.pwrite(file, data, position)

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        with self._turn:
            self._step()
            self._open[file][0].write(offset, bytes(data))
            return len(data)

    def truncate(self, file: int, size: int) -> None:
        with self._turn:
            self._step()
            self._open[file][0].write(size, b"")

    def fsync(self, file: int) -> None:
        with self._turn:
            self._step()
            if "fsync" not in self._deaf:
                self._open[file][0].sync()

    def fdatasync(self, file: int) -> None:
        with self._turn:
            self._step()
            if "fdatasync" not in self._deaf:
                self._open[file][0].sync()

    def close(self, file: int) -> None:
        with self._turn:
            if 0 <= self.cut_at <= self.operations:
                raise PowerCutError
            del self._open[file]
            self._locks = {name: owner for name, owner in self._locks.items() if owner != file}

    def rename(self, source: Path, target: Path) -> None:
        with self._turn:
            self._step()
            self._rename({target.name: self._content(source), source.name: None})

    def link(self, source: Path, target: Path) -> None:
        with self._turn:
            self._step()
            if target.name in self._names:
                raise FileExistsError(17, "File exists")
            self._rename({target.name: self._content(source)})

    def unlink(self, path: Path) -> None:
        with self._turn:
            self._content(path)
            self._step()
            self._rename({path.name: None})

    def sync_folder(self, folder: Path) -> None:  # noqa: ARG002
        with self._turn:
            self._step()
            if "sync_folder" not in self._deaf:
                self._durable_names = dict(self._names)
                self._unsynced_names = []

    def names(self, folder: Path) -> list[str]:  # noqa: ARG002
        return list(self._names)

    def identity(self, path: Path) -> Identity | None:
        if path == FOLDER:
            return Identity(0, 0, 0, 0)
        content = self._names.get(path.name)
        return None if content is None else content.identity

    def identity_of(self, file: int) -> Identity:
        return self._open[file][0].identity

    def free_bytes(self, folder: Path) -> int:  # noqa: ARG002
        return 1 << 40


@dataclass(frozen=True)
class Known:
    """What a store may contain: the acknowledged state, or that with the change in progress. One value, for two
    threads."""

    acknowledged: Contents
    in_flight: Contents | None = None

    @property
    def allowed(self) -> list[Contents]:
        return [self.acknowledged] if self.in_flight is None else [self.acknowledged, self.in_flight]


class PowerCuts:
    """Cuts the power before each operation in several ways, and starts from what is left."""

    def __init__(self, chance: random.Random, cuts_at_each_operation: int, most_violations: int) -> None:
        self._chance = chance
        self._cuts_at_each_operation = cuts_at_each_operation
        self._most_violations = most_violations
        self._seen_in_life = 0
        self.known = Known(Contents())
        self.finding = Finding()
        """Collected and not raised, because the engine would take an exception here for a fault of the disk."""
        self.cut_in_life: tuple[MemoryDisk, Known] | None = None
        """What one of the cuts left, chosen at random. The next life can begin with it."""

    @property
    def has_failed(self) -> bool:
        return len(self.finding.violations) >= self._most_violations

    def begin_life(self, disk: MemoryDisk) -> None:
        disk.watcher = self
        self._seen_in_life = 0
        self.cut_in_life = None

    def cut(self, disk: MemoryDisk) -> None:
        self.finding.figures["operations"] += 1
        # Read it now, because a change may be acknowledged while a checkpoint is being cut.
        known = self.known
        for _ in range(self._cuts_at_each_operation):
            if self.has_failed:
                return
            self.finding.figures["states"] += 1
            self.finding.figures["states with a commit under way"] += known.in_flight is not None
            killed_only = self._chance.random() < 0.25
            left = disk.after_kill() if killed_only else disk.after_cut(self._chance)
            self._remember(left, known)
            try:
                self._start_twice(left, known)
            except ServiceError as error:
                self.finding.violations.append(f"the start was refused: {error.message}")

    def _remember(self, left: MemoryDisk, known: Known) -> None:
        self._seen_in_life += 1
        if self._chance.randrange(self._seen_in_life) == 0:
            self.cut_in_life = (left.after_kill(), known)

    def _start_twice(self, disk: MemoryDisk, known: Known) -> None:
        disk.cut_at = self._chance.randrange(8)
        found: Contents | None = None
        incarnation = ""
        with suppress(PowerCutError):
            storage = Storage(DATA, disk)
            state, _ = storage.open(0, self._make_incarnation)
            found = in_files(state)
            self.expect(found, known)
            bring_to_rest(storage, State(state), self._chance)
            incarnation = state.incarnation
        disk.cut_at = -1
        again, _ = Storage(DATA, disk.after_cut(self._chance)).open(0, self._make_incarnation)
        self.expect(in_files(again), known if found is None else Known(found))
        if incarnation not in ("", again.incarnation):
            self.finding.violations.append(f"incarnation {again.incarnation} after {incarnation}")

    def _make_incarnation(self) -> str:
        return f"{self._chance.getrandbits(24):06x}"

    def expect(self, found: Contents, known: Known) -> None:
        if found not in known.allowed:
            self.finding.violations.append(f"{found} instead of {' or '.join(map(str, known.allowed))}")


def bring_to_rest(storage: Storage, state: State, chance: random.Random) -> None:
    """Run the background work that a small, new or large store does at its start."""
    if storage.has_old_journal or storage.snapshot_revision < 0 or chance.random() < 0.5:
        storage.checkpoint_alone(state.snapshot())
    else:
        storage.rotate()
        storage.checkpoint(state.snapshot())


# Lives --------------------------------------------------------------------------------------------------------


def commit(driver: Driver, cuts: PowerCuts, rng: random.Random, now: int) -> None:
    way = random_way(rng)
    before = cuts.known.acknowledged
    changes = with_receipts(rng, batch_for(rng, way, before, now), before, now)
    after = before.after(changes)
    cuts.known = Known(before, after)
    error = try_commit(driver, changes, way)
    if error is not None:
        cuts.finding.violations.append(f"refused without a fault: {error.message}")
        return
    cuts.known = Known(after)
    cuts.finding.figures["commits"] += 1
    revisions = [change.revision for change in changes if not isinstance(change, Receipt | ReceiptEnd)]
    cuts.finding.figures["commits with a transaction"] += len(set(revisions)) < len(revisions)
    cuts.finding.figures["commits with a receipt"] += any(isinstance(change, Receipt) for change in changes)


def checkpoint(driver: Driver, rng: random.Random) -> None:
    engine = driver.space
    assert isinstance(engine, FileSpace)
    if rng.random() < 0.4:
        driver.run(engine.volume.checkpoint())
    else:
        # In the background: the following changes are committed meanwhile.
        assert engine.volume.storage is not None
        driver.run(_start_checkpoint(engine, engine.volume.storage, rotates=rng.random() < 0.5))


async def _start_checkpoint(engine: FileSpace, storage: Storage, *, rotates: bool) -> None:
    engine.volume.start_checkpoint(storage, rotates=rotates)


def live(disk: MemoryDisk, cuts: PowerCuts, rng: random.Random) -> None:
    """A process from its start to its end: commits and checkpoints, then a kill or a stop."""
    cuts.begin_life(disk)
    clock = FrozenClock()
    driver = file_driver(FOLDER, disk=disk, clock=clock).__enter__()
    found = in_memory(driver)
    cuts.expect(found, cuts.known)
    cuts.known = Known(found)
    for _ in range(rng.randint(2, 10)):
        clock.now += rng.randrange(10**6)
        if rng.random() < 0.2:
            checkpoint(driver, rng)
        else:
            commit(driver, cuts, rng, clock.now)
    if rng.random() < 0.3:
        driver.__exit__(None, None, None)
    else:
        driver.kill()
    cuts.finding.figures["lives"] += 1


def survive_power_cuts(
    seed: int,
    *,
    lives: int,
    cuts_at_each_operation: int,
    deaf: frozenset[str] = frozenset(),
    most_violations: int = MOST_VIOLATIONS,
) -> Finding:
    """Run this many processes one after another, and make this many cuts at each of their operations.

    A process begins with what the one before left, or with what a cut of it would have left. `deaf`: syncs that the
    disk only pretends to do.
    """
    rng = random.Random(seed)
    cuts = PowerCuts(random.Random(seed + 1), cuts_at_each_operation, most_violations)
    disk = MemoryDisk({}, deaf=deaf)
    with capture_logs(), small_sizes(rng):
        for _ in range(lives):
            try:
                live(disk, cuts, rng)
            except ServiceError as error:
                cuts.finding.violations.append(f"the start was refused: {error.message}")
                break
            if cuts.has_failed:
                break
            if rng.random() < 0.5 and cuts.cut_in_life is not None:
                disk, cuts.known = cuts.cut_in_life
    return cuts.finding
