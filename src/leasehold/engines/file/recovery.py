"""Reads the files of a store at a start, and for `leasehold check`. Nothing here changes a file.

The rule: with a snapshot of revision S, journal records up to S are skipped. The others must follow S, and one another,
without a gap. The snapshot and the journals must have the same incarnation. The same holds for the changes of other
namespaces with their numbers, and `data.json.namespaces`. `storage` describes the files, and changes them in an order
that always leads to the committed state.
"""

import errno
import gc
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from leasehold.engines import base
from leasehold.engines.file.checks import check_of, checked_one
from leasehold.engines.file.disk import Disk, close_quietly, read_all
from leasehold.engines.file.documents import read_snapshot
from leasehold.engines.file.journal import JournalReader, NamedRecord, Record
from leasehold.engines.file.namespaces import Head, StoredNamespaces
from leasehold.engines.file.namespaces_file import read_namespaces
from leasehold.engines.state import StoredState
from leasehold.errors import ServiceError, unavailable
from leasehold.keys import check_key
from leasehold.model import ENTRY, KIND_OF, Change, Entry, is_removal
from leasehold.progress import Progress


class Paths:
    """The names of the files of one store."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.folder = data.parent
        self.journal = self._beside(".journal")
        self.old_journal = self._beside(".journal.old")
        self.namespaces = self._beside(".namespaces")
        self.lock = self._beside(".lock")
        self.reserve = self._beside(".reserve")
        self.kept = (self.data, self.namespaces, self.journal, self.old_journal)
        """The files that contain the store."""
        self._temporary = re.compile(
            re.escape(data.name) + r"((\.journal|\.reserve|\.namespaces)?\.tmp-\d+|\.namespaces\.for-[0-9a-f]{6})"
        )
        self._numbers = itertools.count(1)

    def _beside(self, suffix: str) -> Path:
        return self.data.with_name(self.data.name + suffix)

    def prepared_namespaces(self, incarnation: str) -> Path:
        """The namespaces that belong to the `data.json` with this incarnation, as soon as there is one.

        So both are replaced in one step, by the renaming of `data.json`. The next start renames this file, too.
        """
        return self._beside(f".namespaces.for-{incarnation}")

    def temporary(self, path: Path) -> Path:
        """An unused name. Numbers suffice: one process owns the store, and its start removes temporary files."""
        return path.with_name(f"{path.name}.tmp-{next(self._numbers)}")

    def is_temporary(self, name: str) -> bool:
        return self._temporary.fullmatch(name) is not None


class JournalReport(msgspec.Struct, frozen=True):
    """The content of a journal. `end`: the end of its valid records."""

    name: str
    records: int
    end: int
    torn_bytes: int
    incarnation: str
    """That of its store; empty in version 0.1.0."""


class Report(msgspec.Struct, frozen=True):
    """The content of the files. `revision` and `counts` include the journals."""

    revision: int
    counts: Mapping[str, int]
    """The number of records, by `Kind.plural`."""
    snapshot_revision: int
    foreign: bool
    """Another tool wrote `data.json`. A start would import it."""
    journals: tuple[JournalReport, ...]
    namespaces: StoredNamespaces
    """The namespaces except `default`. They include the journals, too."""
    namespaces_sequence: int
    """Up to this change, they are in their file."""

    @property
    def other_entries(self) -> int:
        """The number of entries in all namespaces but `default`."""
        return sum(len(state.of(ENTRY).by_name) for state in self.namespaces.states.values())

    @property
    def journal_records(self) -> int:
        return sum(journal.records for journal in self.journals)

    @property
    def incarnations(self) -> tuple[str, ...]:
        return tuple(journal.incarnation for journal in self.journals)

    @property
    def torn_bytes(self) -> int:
        return sum(journal.torn_bytes for journal in self.journals)


def inspect(path: Path, disk: Disk) -> Report:
    """Verify the files of a store as a start does, without changing anything.

    Raises the errors of a start, and `unavailable` if a process uses the store.
    """
    paths = Paths(real_path(path))
    with as_unavailable(paths.data.name, "opened"), suppress(FileNotFoundError):
        close_quietly(disk, disk.open(paths.data))
    lock = _keep_owners_away(disk, paths)
    try:
        return read_files(disk, paths, now=0)[1]
    finally:
        if lock is not None:
            close_quietly(disk, lock)


def read_files(disk: Disk, paths: Paths, now: int, progress: Progress | None = None) -> tuple[StoredState, Report]:
    """The state in the files. Changes nothing. Raises `unavailable` if the files do not match each other."""
    progress = progress or Progress()
    with without_collector():
        # The journals first, because a service may use the store. Whatever a checkpoint removes from them afterwards is
        # in the snapshots that are read then. In the other order, changes would be missing.
        texts = _read_journals(disk, paths)
        with as_unavailable(paths.data.name, "read"):
            state = read_snapshot(disk, paths.data, now, progress=progress)
        snapshot_revision = state.revision
        with as_unavailable(paths.namespaces.name, "read"):
            namespaces = StoredNamespaces()
            if state.incarnation:
                namespaces = read_namespaces(disk, paths.prepared_namespaces(state.incarnation), progress)
            if not namespaces.sequence:
                namespaces = read_namespaces(disk, paths.namespaces, progress)
        snapshot_sequence = namespaces.sequence
        with as_unavailable(f"the folder {paths.folder}", "read"):
            has_data = paths.data.name in disk.names(paths.folder)
        journals: list[JournalReport] = []
        for path in (paths.old_journal, paths.journal):
            if path not in texts:
                continue
            if state.foreign:
                raise unavailable(
                    f"{paths.data.name} was not written by Leasehold, but {path.name} was: move one of them away"
                )
            data = texts.pop(path)
            reader = JournalReader(data, path.name)
            progress.begin(f"reading {path.name}", len(data))
            if not state.incarnation and not has_data:
                state.incarnation = reader.incarnation  # `data.json` is missing; the journal may have everything
            if reader.incarnation not in ("", state.incarnation):
                raise _of_another_store(paths.data, path)
            replay = _Replay(reader, paths, path, state, namespaces)
            journals.append(replay.run(snapshot_revision, snapshot_sequence, progress))
    for each in (state, *namespaces.states.values()):
        _forget_old_removals(each)
    counts = {kind.plural: len(contents.by_name) for kind, contents in state.contents.items()}
    report = Report(
        state.revision, counts, snapshot_revision, state.foreign, tuple(journals), namespaces, snapshot_sequence
    )
    return state, report


def _read_journals(disk: Disk, paths: Paths) -> dict[Path, bytes]:
    """The bytes of the journals that exist.

    The newer one first. If it becomes the old one meanwhile, it is read twice, which the replay refuses. In the other
    order, it might be missed.
    """
    texts: dict[Path, bytes] = {}
    for path in (paths.journal, paths.old_journal):
        with as_unavailable(path.name, "read"), suppress(FileNotFoundError):
            texts[path] = read_all(disk, path)
    return texts


class _Replay:
    """Applies the records of one journal that `state` and `namespaces` do not include yet."""

    def __init__(
        self, reader: JournalReader, paths: Paths, path: Path, state: StoredState, namespaces: StoredNamespaces
    ) -> None:
        self._reader = reader
        self._paths = paths
        self._path = path
        self._state = state
        self._namespaces = namespaces

    def run(self, snapshot_revision: int, snapshot_sequence: int, progress: Progress) -> JournalReport:
        """The arguments say up to where the files include the changes."""
        reader = self._reader
        if reader.base_revision > self._state.revision:
            raise _too_new(self._paths, self._path, reader.base_revision, self._state.revision)
        records = 0
        for record in reader.records():
            records += 1
            progress.done = record.offset
            if isinstance(record, NamedRecord):
                self._apply_named(record, snapshot_sequence)
            elif record.last_revision > snapshot_revision:
                self._apply(record)
        return JournalReport(self._path.name, records, reader.end, reader.torn_bytes, reader.incarnation)

    def _apply(self, record: Record) -> None:
        state, reader = self._state, self._reader
        if reader.incarnation != state.incarnation:
            # The journal is of version 0.1.0, and `data.json` is newer. The start that wrote that `data.json` covered
            # all of its own journals, so this journal belongs to another store.
            raise _of_another_store(self._paths.data, self._path)
        if record.first_revision != state.revision + 1:
            raise reader.gap(record.offset, state.revision)
        for change in record.changes:
            _apply(_checked(change, reader, record.offset), state)
        state.revision = record.last_revision

    def _apply_named(self, record: NamedRecord, snapshot_sequence: int) -> None:
        namespaces, reader = self._namespaces, self._reader
        namespaces.log = namespaces.log or record.log
        if record.log != namespaces.log:
            raise _of_another_store(self._paths.namespaces, self._path)
        if record.sequence <= snapshot_sequence:
            return
        if record.sequence != namespaces.sequence + 1:
            raise self._lacking(record)
        namespaces.sequence = record.sequence
        content = record.content
        if isinstance(content, Head):
            wrong = namespaces.apply(record.namespace, content)
        else:
            wrong = self._apply_batch(record, content)
        if wrong:
            raise reader.corrupt(record.offset, f"it {wrong}")

    def _apply_batch(self, record: NamedRecord, changes: Sequence[Change]) -> str:
        state = self._namespaces.states.get(record.namespace)
        if state is None:
            return "changes a namespace that does not exist"
        if not changes or min(change.revision for change in changes) <= state.revision:
            return f"does not follow revision {state.revision} of its namespace"
        for change in changes:
            _apply(_checked(change, self._reader, record.offset), state)
        state.revision = max(change.revision for change in changes)
        return ""

    def _lacking(self, record: NamedRecord) -> ServiceError:
        """Changes between the file of the namespaces and the journal are missing."""
        file, found = self._paths.namespaces.name, self._namespaces.sequence
        if record.sequence <= found:
            return self._reader.corrupt(record.offset, f"the change {record.sequence} follows {found}")
        return unavailable(
            f"{self._path.name} continues at change {record.sequence} of the namespaces, but {file} "
            f"{f'ends at change {found}' if found else 'is missing or empty'}: put back the {file} that was there; "
            f"nothing was changed"
        )


def _of_another_store(file: Path, journal: Path) -> ServiceError:
    return unavailable(
        f"{journal.name} belongs to another store than {file.name}: put back the {file.name} "
        f"that it belongs to, or move {journal.name} away; nothing was changed"
    )


def _too_new(paths: Paths, journal: Path, base_revision: int, revision: int) -> ServiceError:
    """The changes between `data.json` and the journal are missing: one of the two files was replaced or removed."""
    data = paths.data.name
    away = " and ".join(path.name for path in (paths.old_journal, paths.journal))
    return unavailable(
        f"{journal.name} begins after revision {base_revision}, but {data} "
        f"{f'ends at revision {revision}' if revision else 'is missing or empty'}: put back the {data} that was there, "
        f"or, to go back to this one, move {away} away; nothing was changed"
    )


def _checked(change: Change, reader: JournalReader, offset: int) -> Change:
    """The change, checked by the rules of the API. A valid checksum does not prove that Leasehold wrote it."""
    try:
        if type(change) is Entry:
            return checked_one(change)
        if is_removal(change):
            check_key(change.name)
            return change
        return check_of(KIND_OF[type(change)])(change)
    except ServiceError as error:
        raise reader.corrupt(offset, f"it has a change that the API does not accept: {error.message}") from error


def _apply(change: Change, state: StoredState) -> None:
    """Apply a change. The removals stay in the order of their revisions."""
    kind, name = KIND_OF[type(change)], change.name
    by_name, removals = state.by_name(kind), state.contents[kind].removals
    removals.pop(name, None)
    if isinstance(change, kind.record):
        by_name[name] = change
    else:
        by_name.pop(name, None)
        if kind.has_history:
            removals[name] = change.revision


def _forget_old_removals(state: StoredState) -> None:
    """Remove removals that are more than HISTORY_CHANGES revisions old: a journal may have more than a space keeps."""
    state.compacted_revision = max(state.compacted_revision, state.revision - base.HISTORY_CHANGES)
    for contents in state.contents.values():
        if not contents.removals:
            continue
        kept = [removal for removal in contents.removals.items() if removal[1] > state.compacted_revision]
        contents.removals = dict(kept)


@contextmanager
def without_collector() -> Iterator[None]:
    """Without this, the garbage collector would visit the millions of new objects many times."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _keep_owners_away(disk: Disk, paths: Paths) -> int | None:
    try:
        return disk.lock_shared(paths.lock)
    except FileNotFoundError:
        return None  # never used by Leasehold
    except OSError as error:
        raise lock_refusal(paths, error) from error


# Failures at a start: one line for the operator that names the file and the failed operation -------------------

_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
"""The file system has no flock."""


def real_path(path: Path) -> Path:
    """The file to which `path` leads through symbolic links. A loop of links fails later, when the file is opened."""
    return Path(os.path.realpath(path))


@contextmanager
def as_unavailable(name: str, done: str) -> Iterator[None]:
    """Raise OSErrors as `unavailable`. `done`: the operation on the file `name`, such as `opened` or `read`."""
    try:
        yield
    except OSError as error:
        raise unavailable(f"{name} cannot be {done}: {error.strerror or 'the disk failed'}") from error


def lock_refusal(paths: Paths, error: OSError) -> ServiceError:
    """Why the lock file could not be taken."""
    if isinstance(error, BlockingIOError):
        return unavailable(f"{paths.data.name} is in use by another process")
    if isinstance(error, FileNotFoundError):
        return unavailable(f"{paths.data.name} cannot be opened: there is no folder {paths.folder}")
    reason = error.strerror or "the disk failed"
    if error.errno in _NO_LOCKS:
        reason += "; the file system has no flock, so the store must be kept on another one"
    return unavailable(f"{paths.lock.name} cannot be locked: {reason}")
