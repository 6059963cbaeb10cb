"""A kill or a power cut leaves files from which a start finds what was acknowledged, maybe with what was in flight.

`MemoryDisk` knows what a real disk would have kept: what was written to a file is sure only after a sync of the file,
a name only after a sync of the folder. Of the rest a cut keeps any part in any order, sector by sector and name by
name. The start after a cut is cut too, since readers may have seen what it found.
"""

import random
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest
from driving import Driver, FrozenClock, file_driver
from structlog.testing import capture_logs

from leasehold.engines import journal
from leasehold.engines.file import FileEngine
from leasehold.engines.memory import State as StateInMemory
from leasehold.engines.storage import Storage
from leasehold.errors import ServiceError

FOLDER = Path("/store")
SECTOR_BYTES = 512
LARGE = b'"' + b"x" * 300_000 + b'"'
"""A store with it is too large for being written anew by each commit."""

State = tuple[int, dict[str, bytes]]
T = TypeVar("T")


class PowerCutError(BaseException):
    """The machine is off. No `except` of the engine may catch it."""


class Content:
    """A file: as the kernel has it, and as the disk is sure to have it, with what lies between."""

    def __init__(self, durable: bytes = b"") -> None:
        self.current = bytearray(durable)
        self._durable = durable
        self._unsynced: list[tuple[int, bytes]] = []
        """Writes with their offsets; a change of the size stands here as `(size, b"")`."""

    def write(self, offset: int, data: bytes) -> None:
        apply_write(self.current, offset, data)
        self._unsynced.append((offset, data))

    def sync(self) -> None:
        if self._unsynced:
            self._durable = bytes(self.current)
            self._unsynced = []

    def copy(self) -> "Content":
        copy = Content(self._durable)
        copy.current = bytearray(self.current)
        copy._unsynced = list(self._unsynced)
        return copy

    def after_cut(self, chance: random.Random) -> bytes:
        if not self._unsynced:
            return self._durable
        kept = bytearray(self._durable)
        for offset, data in survivors([sector for write in self._unsynced for sector in sectors(*write)], chance):
            apply_write(kept, offset, data)
        return bytes(kept)


def apply_write(content: bytearray, offset: int, data: bytes) -> None:
    if not data:
        del content[offset:]
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


def sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    if not data:
        yield offset, data
    position = 0
    while position < len(data):
        size = SECTOR_BYTES - (offset + position) % SECTOR_BYTES
        yield offset + position, data[position : position + size]
        position += size


def survivors(items: list[T], chance: random.Random) -> list[T]:
    """None, all, the first ones, or any of them: the extremes are the likeliest to matter."""
    way = chance.randrange(4)
    if way == 0:
        return []
    if way == 1:
        return items
    if way == 2:
        return items[: chance.randrange(len(items) + 1)]
    return [item for item in items if chance.random() < 0.5]


class MemoryDisk:
    """A folder in memory. `deaf`: syncs that it pretends to do, to see whether the test would notice."""

    def __init__(self, files: dict[str, bytes], *, deaf: frozenset[str] = frozenset()) -> None:
        self._names = {name: Content(data) for name, data in files.items()}
        self._durable_names = dict(self._names)
        self._unsynced_names: list[dict[str, Content | None]] = []
        """What each operation did to the names, as a whole or not at all."""
        self._open: dict[int, tuple[Content, int]] = {}
        """Contents and positions by descriptor."""
        self._locks: dict[str, int] = {}
        self._deaf = deaf
        self._last_file = 0
        self._turn = threading.RLock()
        """An operation with its cuts is a whole, though the engine has two threads."""
        self.operations = 0
        self.cut_at = -1
        self.watcher: PowerCuts | None = None

    def after_cut(self, chance: random.Random) -> "MemoryDisk":
        """The same disk with power again."""
        names: dict[str, Content | None] = dict(self._durable_names)
        for change in survivors(self._unsynced_names, chance):
            names.update(change)
        return MemoryDisk({name: content.after_cut(chance) for name, content in names.items() if content is not None})

    def after_kill(self) -> "MemoryDisk":
        """The same disk for another process: the kernel has everything, also what is not synced."""
        every_name: list[Mapping[str, Content | None]] = [self._names, self._durable_names, *self._unsynced_names]
        contents = {id(content): content for names in every_name for content in names.values() if content is not None}
        copies = {number: content.copy() for number, content in contents.items()}
        disk = MemoryDisk({})
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


class PowerCuts:
    """Cuts the power before each operation, in several ways, and starts from what is left."""

    def __init__(self, cuts_at_each_operation: int) -> None:
        self._cuts_at_each_operation = cuts_at_each_operation
        self._chance = random.Random(1)
        self.acknowledged: State = (0, {})
        self.in_flight: State | None = None
        self.cuts = 0
        self.cuts_in_flight = 0
        self.violations: list[str] = []
        """Gathered, not raised: the engine would take an exception here for a fault of the disk."""

    def cut(self, disk: MemoryDisk) -> None:
        # Now, since an acknowledgement may be on its way while the checkpoint is being cut.
        allowed = [self.acknowledged, self.in_flight]
        for _ in range(self._cuts_at_each_operation):
            self.cuts += 1
            self.cuts_in_flight += self.in_flight is not None
            try:
                killed_only = self._chance.random() < 0.25
                self._start_twice(disk.after_kill() if killed_only else disk.after_cut(self._chance), allowed)
            except ServiceError as error:
                self.violations.append(f"the start was refused: {error.message}")

    def _start_twice(self, disk: MemoryDisk, allowed: list[State | None]) -> None:
        disk.cut_at = self._chance.randrange(8)
        found: State | None = None
        try:
            storage = Storage(FOLDER / "data.json", disk)
            state = storage.open(0)
            found = (state.revision, {entry.key: entry.value for entry in state.entries.values()})
            self._expect(found, allowed)
            bring_to_rest(storage, StateInMemory(state), self._chance)
        except PowerCutError:
            pass
        disk.cut_at = -1
        again = Storage(FOLDER / "data.json", disk.after_cut(self._chance)).open(0)
        found_again = (again.revision, {entry.key: entry.value for entry in again.entries.values()})
        self._expect(found_again, allowed if found is None else [found])

    def _expect(self, found: State, allowed: list[State | None]) -> None:
        if found not in allowed:
            self.violations.append(f"revision {found[0]} with {sorted(found[1])} after {self.acknowledged[0]}")


def bring_to_rest(storage: Storage, state: StateInMemory, chance: random.Random) -> None:
    """What a small store does at its start, or a large one."""
    if storage.has_old_journal or chance.random() < 0.5:
        storage.settle(state.snapshot())
    else:
        storage.rotate()
        storage.checkpoint(state.snapshot())


def commit(driver: Driver, cuts: PowerCuts, *batch: tuple[str, bytes | None], alone: bool) -> None:
    revision, values = cuts.acknowledged
    after = dict(values)
    for key, value in batch:
        if value is None:
            after.pop(key, None)
        else:
            after[key] = value
    cuts.in_flight = (revision + len(batch), after)
    error = driver.try_commit(*batch, alone=alone)
    assert error is None
    cuts.acknowledged, cuts.in_flight = cuts.in_flight, None


def live(disk: MemoryDisk, cuts: PowerCuts, life: int) -> None:
    """Commits of every kind and a checkpoint, then the process is killed."""
    filler = b'"' + b"y" * 700 + b'"'
    driver = file_driver(FOLDER, disk=disk, clock=FrozenClock()).__enter__()
    assert isinstance(driver.engine, FileEngine)
    commit(driver, cuts, ("a", b"%d" % life), alone=True)
    commit(driver, cuts, ("b", filler), ("c", b"%d" % life), alone=False)
    if life == 3:
        commit(driver, cuts, ("large", LARGE), alone=False)
    commit(driver, cuts, ("b", None), ("e", filler), alone=False)
    commit(driver, cuts, ("d", b"%d" % life), alone=True)
    if life % 3 == 1:
        driver.run(driver.engine.checkpoint())
    if life % 3 == 2:
        # In the background: what follows is committed while it goes on.
        assert driver.engine._storage is not None
        driver.engine._start_checkpoint(driver.engine._storage)
    commit(driver, cuts, ("f", filler), ("c", None), alone=False)
    commit(driver, cuts, ("g", filler), alone=False)
    driver.kill()


def run_with_cuts(monkeypatch: pytest.MonkeyPatch, disk: MemoryDisk, cuts_at_each_operation: int) -> PowerCuts:
    """Six processes after one another on one disk."""
    # Small chunks, because the states are many; several records still stand in each.
    monkeypatch.setattr(journal, "FIRST_CHUNK_BYTES", 4096)
    monkeypatch.setattr(journal, "CHUNK_BYTES", 8192)
    monkeypatch.setattr("leasehold.engines.storage.RESERVE_BYTES", 0)
    disk.watcher = cuts = PowerCuts(cuts_at_each_operation)
    with capture_logs():
        for life in range(6):
            live(disk, cuts, life)
    return cuts


def test_what_was_acknowledged_survives_any_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = run_with_cuts(monkeypatch, MemoryDisk({}), cuts_at_each_operation=64)
    assert cuts.violations == []
    assert cuts.cuts >= 20_000
    assert cuts.cuts_in_flight >= 10_000, "the cuts must strike while something is under way"


@pytest.mark.parametrize("sync", ["fsync", "fdatasync", "sync_folder"])
def test_a_sync_left_out_would_be_noticed(monkeypatch: pytest.MonkeyPatch, sync: str) -> None:
    disk = MemoryDisk({}, deaf=frozenset({sync}))
    assert run_with_cuts(monkeypatch, disk, cuts_at_each_operation=5).violations


def test_a_checksum_left_out_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "zlib", SimpleNamespace(crc32=lambda _data, _before=0: 0))
    assert run_with_cuts(monkeypatch, MemoryDisk({}), cuts_at_each_operation=5).violations
