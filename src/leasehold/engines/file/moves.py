"""A store in files as the source or the target of a move (`engines.moves`). The lock file keeps services away.

A source is not changed. A target is written to a temporary file, read back, and renamed to `data.json` once it was
compared. Until then the files are those of an empty store. The other namespaces are in a second file, which counts from
the moment on when `data.json` has its name (`Paths.prepared_namespaces`).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from leasehold.engines.base import MakeIncarnation
from leasehold.engines.file.disk import Disk, WriteError, close_quietly, rename_durably, replace_file, unlink_quietly
from leasehold.engines.file.documents import read_snapshot
from leasehold.engines.file.namespaces import Head as KeptHead
from leasehold.engines.file.namespaces import NamespacesSnapshot, StoredNamespaces, head_of
from leasehold.engines.file.namespaces_file import namespaces_text, read_namespaces
from leasehold.engines.file.ownership import Lock
from leasehold.engines.file.probe import check_that_files_can_be_replaced
from leasehold.engines.file.recovery import Paths, as_unavailable, lock_refusal, read_files, real_path
from leasehold.engines.file.snapshot import snapshot_text
from leasehold.engines.moves import Head, RemovedName
from leasehold.engines.state import Description, Snapshot, StoredState, empty_state, snapshot_of
from leasehold.errors import unavailable
from leasehold.model import AnyKind, Quota, Record
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.progress import Progress

PAGE_RECORDS: Final = 1_000


class StateSource:
    """The space of a namespace whose files were read."""

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


class StateTarget(StateSource):
    """The space of a namespace that is filled."""

    async def add(self, kind: AnyKind, records: Sequence[Record]) -> None:
        self._state.by_name(kind).update((record.name, record) for record in records)

    async def add_removals(self, kind: AnyKind, removals: Sequence[RemovedName]) -> None:
        self._state.contents[kind].removals.update(removals)

    def take(self, head: Head) -> StoredState:
        """The complete state, which this object forgets."""
        state, self._state = self._state, empty_state()
        state.incarnation, state.revision = head.incarnation, head.revision
        state.compacted_revision = head.compacted_revision
        return state


class FileSource:
    """A store whose files were read."""

    def __init__(self, state: StoredState, others: StoredNamespaces) -> None:
        self._read(state, others)

    def _read(self, state: StoredState, others: StoredNamespaces) -> None:
        """This is what the files have."""
        self._states = {DEFAULT_NAMESPACE: state, **others.states}
        self._others = others

    @property
    def namespaces(self) -> Mapping[str, Description]:
        return self._others.descriptions

    def space(self, namespace: str) -> StateSource:
        return StateSource(self._states[namespace])


def _lines_of(snapshot: Snapshot | NamespacesSnapshot) -> int:
    """How many records and removals are written."""
    snapshots = snapshot.snapshots.values() if isinstance(snapshot, NamespacesSnapshot) else (snapshot,)
    return sum(len(part.names) + len(part.removals) for each in snapshots for part in each.kinds)


def _pages(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[begin : begin + PAGE_RECORDS] for begin in range(0, len(names), PAGE_RECORDS))


class FileTarget(FileSource):
    """Files that are filled. Their lock is held."""

    def __init__(
        self,
        state: StoredState,
        others: StoredNamespaces,
        disk: Disk,
        paths: Paths,
        lock: Lock,
        log: str,
        now: int,
        progress: Progress,
    ) -> None:
        """`log`: see StoredNamespaces."""
        super().__init__(state, others)
        self.is_empty = state.is_empty and not others.sequence
        self._is_filled = not self.is_empty
        self._added: dict[str, StateTarget] = {}
        self._disk = disk
        self._paths = paths
        self._lock = lock
        self._log = log
        self._now = now
        self._progress = progress
        self._written: Path | None = None
        """The temporary file with the complete content of `default`."""
        self._prepared: Path | None = None
        """The file with the other namespaces, if there are any."""

    def space(self, namespace: str) -> StateTarget:
        """As it is in the files. Before they are written, a space that is filled."""
        if self._is_filled:
            return StateTarget(self._states[namespace])
        return self._added.setdefault(namespace, StateTarget(empty_state()))

    async def write(self, namespaces: Mapping[str, Description], heads: Mapping[str, Head]) -> None:
        state, others = await asyncio.to_thread(self._write, namespaces, heads)
        self._read(state, others)
        self._is_filled = True

    def _write(
        self, namespaces: Mapping[str, Description], heads: Mapping[str, Head]
    ) -> tuple[StoredState, StoredNamespaces]:
        """Write what was added to two files. Returns what is in them."""
        paths = self._paths
        incarnation = heads[DEFAULT_NAMESPACE].incarnation
        others = self._others_to_write(namespaces, heads)
        found = StoredNamespaces()
        if others is not None:
            self._prepared = paths.prepared_namespaces(incarnation)
            size = self._write_file(self._prepared, paths.namespaces, namespaces_text(others), _lines_of(others))
            del others
            self._progress.begin(f"reading {paths.namespaces.name}", size)
            with as_unavailable(paths.namespaces.name, "read"):
                found = read_namespaces(self._disk, self._prepared, self._progress)
        snapshot = snapshot_of(self._added.pop(DEFAULT_NAMESPACE).take(heads[DEFAULT_NAMESPACE]))
        self._written = paths.temporary(paths.data)
        text, lines = snapshot_text(snapshot), _lines_of(snapshot)
        del snapshot  # so that the memory is free before as much is read
        size = self._write_file(self._written, paths.data, text, lines)
        del text
        self._progress.begin(f"reading {paths.data.name}", size)
        with as_unavailable(paths.data.name, "read"):
            return read_snapshot(self._disk, self._written, self._now, progress=self._progress), found

    def _others_to_write(
        self, namespaces: Mapping[str, Description], heads: Mapping[str, Head]
    ) -> NamespacesSnapshot | None:
        """What the file of the other namespaces will have. None: it is not needed."""
        found = StoredNamespaces(self._log)
        for name, description in namespaces.items():
            if description.deleted_at_revision is not None:
                found.heads[name] = KeptHead(description.deleted_at_revision)
            elif name != DEFAULT_NAMESPACE:
                found.heads[name] = head_of(description, heads[name].revision, heads[name].incarnation)
                found.states[name] = self._added.pop(name).take(heads[name])
            elif description.quota != Quota():
                found.heads[name] = head_of(description, 0, DEFAULT_NAMESPACE)
        found.sequence = len(found.heads)
        return found.snapshot()

    def _write_file(self, path: Path, shown: Path, text: Iterator[bytes], lines: int) -> int:
        """Write a file that is to become `shown`. Returns its size."""
        self._progress.begin(f"writing {shown.name}", lines, "lines")
        with _write_errors_as_unavailable(self._paths):
            text = self._progress.counting_lines(text)
            return replace_file(self._disk, path, self._paths.temporary(shown), text).size

    async def publish(self) -> None:
        assert self._written is not None
        with _write_errors_as_unavailable(self._paths), as_unavailable(self._paths.lock.name, "found"):
            if not self._lock.is_held():
                raise unavailable(f"{self._paths.lock.name} was removed by another program; nothing was changed")
            self._remove_journals()
            try:
                rename_durably(self._disk, self._written, self._paths.data)
            except WriteError as error:
                if not error.nothing_changed:
                    self._prepared = None  # `data.json` may have its name, and needs it
                raise
            self._written = None
            prepared, self._prepared = self._prepared, None
            if prepared is not None:
                with suppress(WriteError):  # a start will do it
                    rename_durably(self._disk, prepared, self._paths.namespaces)

    def _remove_journals(self) -> None:
        """Remove journals without a batch, durably: a start would find that they belong to another store."""
        with as_unavailable(f"the folder {self._paths.folder}", "changed"):
            for path in (self._paths.journal, self._paths.old_journal):
                with suppress(FileNotFoundError):
                    self._disk.unlink(path)
            self._disk.sync_folder(self._paths.folder)

    def discard(self) -> None:
        """Remove what was written but not published."""
        for path in (self._written, self._prepared):
            if path is not None:
                unlink_quietly(self._disk, path)


@asynccontextmanager
async def opened_source(
    path: Path, disk: Disk, *, make_incarnation: MakeIncarnation, now: int, progress: Progress
) -> AsyncIterator[FileSource]:
    """The store at `path`. Raises `unavailable` if there is none, if a process uses it, or if it is damaged.

    A store of version 0.1.0 has no incarnation, and is read with a new one.
    """
    paths = Paths(real_path(path))
    with as_unavailable(f"the folder {paths.folder}", "read"):
        if not {each.name for each in paths.kept} & set(disk.names(paths.folder)):
            raise unavailable(f"there is no store at {path}")
    with _locked(disk, paths):
        state, others = await asyncio.to_thread(_read, disk, paths, now, progress)
        state.incarnation = state.incarnation or make_incarnation()
        yield FileSource(state, others)


@asynccontextmanager
async def opened_target(
    path: Path, disk: Disk, *, make_incarnation: MakeIncarnation, now: int, progress: Progress
) -> AsyncIterator[FileTarget]:
    """The store at `path`, which need not exist. Raises `unavailable` if a process uses it, or if it is damaged."""
    paths = Paths(real_path(path))
    with _locked(disk, paths) as lock:
        state, others = await asyncio.to_thread(_read, disk, paths, now, progress)
        target = FileTarget(state, others, disk, paths, lock, make_incarnation(), now, progress)
        if target.is_empty:
            _prepare(disk, paths)
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


def _read(disk: Disk, paths: Paths, now: int, progress: Progress) -> tuple[StoredState, StoredNamespaces]:
    """The namespace `default`, and the others."""
    size = disk.identity(paths.data)
    progress.begin(f"reading {paths.data.name}", 0 if size is None else size.size)
    state, report = read_files(disk, paths, now, progress)
    return state, report.namespaces


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
