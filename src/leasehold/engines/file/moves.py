"""A store in files as the source or the target of a move (`engines.moves`). The lock file keeps services away.

A source is not changed. A target is written to a temporary file, read back, and renamed to `data.json` once it was
compared. Until then the files are those of an empty store.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from leasehold.engines.base import MakeIncarnation
from leasehold.engines.file.disk import Disk, WriteError, close_quietly, rename_durably, replace_file, unlink_quietly
from leasehold.engines.file.documents import read_snapshot
from leasehold.engines.file.ownership import Lock
from leasehold.engines.file.probe import check_that_files_can_be_replaced
from leasehold.engines.file.recovery import Paths, as_unavailable, lock_refusal, read_files, real_path
from leasehold.engines.file.snapshot import snapshot_text
from leasehold.engines.moves import Head, RemovedName
from leasehold.engines.state import StoredState, empty_state, snapshot_of
from leasehold.errors import unavailable
from leasehold.model import AnyKind, Record
from leasehold.progress import Progress

PAGE_RECORDS: Final = 1_000


class StateSource:
    """A store whose files were read."""

    def __init__(self, state: StoredState) -> None:
        self._state = state

    @property
    def head(self) -> Head:
        return Head(self._state.incarnation, self._state.revision, self._state.compacted_revision)

    async def count(self, kind: AnyKind) -> int:
        return len(self._state.by_name(kind))

    async def records(self, kind: AnyKind) -> AsyncGenerator[Sequence[Record]]:
        by_name = self._state.by_name(kind)
        for names in _pages(sorted(by_name)):
            yield [by_name[name] for name in names]

    async def removals(self, kind: AnyKind) -> AsyncGenerator[Sequence[RemovedName]]:
        removals = self._state.contents[kind].removals
        for names in _pages(sorted(removals)):
            yield [RemovedName(name, removals[name]) for name in names]


def _pages(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[begin : begin + PAGE_RECORDS] for begin in range(0, len(names), PAGE_RECORDS))


class FileTarget(StateSource):
    """Files that are filled. Their lock is held."""

    def __init__(self, state: StoredState, disk: Disk, paths: Paths, lock: Lock, now: int, progress: Progress) -> None:
        super().__init__(state)
        self.is_empty = state.is_empty
        self._added = empty_state()
        self._disk = disk
        self._paths = paths
        self._lock = lock
        self._now = now
        self._progress = progress
        self._written: Path | None = None
        """The temporary file with the complete content."""

    async def add(self, kind: AnyKind, records: Sequence[Record]) -> None:
        self._added.by_name(kind).update((record.name, record) for record in records)

    async def add_removals(self, kind: AnyKind, removals: Sequence[RemovedName]) -> None:
        self._added.contents[kind].removals.update(removals)

    async def write(self, head: Head) -> None:
        self._state = await asyncio.to_thread(self._write, head)

    def _write(self, head: Head) -> StoredState:
        """Write what was added to a temporary file. Returns what is in the file."""
        disk, paths = self._disk, self._paths
        added, self._added = self._added, empty_state()
        added.incarnation, added.revision = head.incarnation, head.revision
        added.compacted_revision = head.compacted_revision
        snapshot = snapshot_of(added)
        del added  # with `snapshot` below, so that the memory is free before as much is read
        self._written = paths.temporary(paths.data)
        lines = sum(len(part.names) + len(part.removals) for part in snapshot.kinds)
        self._progress.begin(f"writing {paths.data.name}", lines, "lines")
        text = self._progress.counting_lines(snapshot_text(snapshot))
        del snapshot
        with _write_errors_as_unavailable(paths):
            written = replace_file(disk, self._written, paths.temporary(paths.data), text)
        del text
        self._progress.begin(f"reading {paths.data.name}", written.size)
        with as_unavailable(paths.data.name, "read"):
            return read_snapshot(disk, self._written, self._now, progress=self._progress)

    async def publish(self) -> None:
        assert self._written is not None
        with _write_errors_as_unavailable(self._paths), as_unavailable(self._paths.lock.name, "found"):
            if not self._lock.is_held():
                raise unavailable(f"{self._paths.lock.name} was removed by another program; nothing was changed")
            self._remove_journals()
            rename_durably(self._disk, self._written, self._paths.data)
        self._written = None

    def _remove_journals(self) -> None:
        """Remove journals without a batch, durably: a start would find that they belong to another store."""
        with as_unavailable(f"the folder {self._paths.folder}", "changed"):
            for path in (self._paths.journal, self._paths.old_journal):
                with suppress(FileNotFoundError):
                    self._disk.unlink(path)
            self._disk.sync_folder(self._paths.folder)

    def discard(self) -> None:
        """Remove what was written but not published."""
        if self._written is not None:
            unlink_quietly(self._disk, self._written)


@asynccontextmanager
async def opened_source(
    path: Path, disk: Disk, *, make_incarnation: MakeIncarnation, now: int, progress: Progress
) -> AsyncIterator[StateSource]:
    """The store at `path`. Raises `unavailable` if there is none, if a process uses it, or if it is damaged.

    Also if it has other namespaces than `default`, because a move does not take them along.

    A store of version 0.1.0 has no incarnation, and is read with a new one.
    """
    paths = Paths(real_path(path))
    with as_unavailable(f"the folder {paths.folder}", "read"):
        if not {each.name for each in paths.kept} & set(disk.names(paths.folder)):
            raise unavailable(f"there is no store at {path}")
    with _locked(disk, paths):
        state, has_others = await asyncio.to_thread(_read, disk, paths, now, progress)
        if has_others:
            raise unavailable(
                f"{path} has, or has had, other namespaces or a quota, which cannot be moved; nothing was changed"
            )
        state.incarnation = state.incarnation or make_incarnation()
        yield StateSource(state)


@asynccontextmanager
async def opened_target(path: Path, disk: Disk, *, now: int, progress: Progress) -> AsyncIterator[FileTarget]:
    """The store at `path`, which need not exist. Raises `unavailable` if a process uses it, or if it is damaged."""
    paths = Paths(real_path(path))
    with _locked(disk, paths) as lock:
        state, has_others = await asyncio.to_thread(_read, disk, paths, now, progress)
        if has_others:
            raise unavailable("the target is not empty: it has, or has had, other namespaces; nothing was changed")
        if state.is_empty:
            _prepare(disk, paths)
        target = FileTarget(state, disk, paths, lock, now, progress)
        try:
            yield target
        finally:
            target.discard()


@contextmanager
def _locked(disk: Disk, paths: Paths) -> Iterator[Lock]:
    with as_unavailable(paths.data.name, "opened"), suppress(FileNotFoundError):
        # First, so that no lock file is created beside a path that is not a file.
        close_quietly(disk, disk.open(paths.data))
    lock = Lock(disk, paths.lock)
    try:
        lock.take()
    except OSError as error:
        raise lock_refusal(paths, error) from error
    try:
        yield lock
    finally:
        lock.release()


def _read(disk: Disk, paths: Paths, now: int, progress: Progress) -> tuple[StoredState, bool]:
    """The namespace `default`, and whether there are or were others."""
    size = disk.identity(paths.data)
    progress.begin(f"reading {paths.data.name}", 0 if size is None else size.size)
    state, report = read_files(disk, paths, now, progress)
    return state, report.namespaces.sequence > 0


def _prepare(disk: Disk, paths: Paths) -> None:
    """Remove what a killed process has left, and make sure that `data.json` can be created or replaced."""
    with as_unavailable(f"the folder {paths.folder}", "changed"):
        for name in filter(paths.is_temporary, disk.names(paths.folder)):
            disk.unlink(paths.folder / name)
    check_that_files_can_be_replaced(disk, paths)


@contextmanager
def _write_errors_as_unavailable(paths: Paths) -> Iterator[None]:
    """A failure of the disk, as one line for the operator."""
    try:
        yield
    except WriteError as error:
        outcome = "it was not changed" if error.nothing_changed else "whether it was is unknown: begin again"
        raise unavailable(f"{paths.data} could not be written: {error}; {outcome}") from error
