"""The files of a store and the order in which they change. Blocking; no event loop, no entries in memory.

    data.json              the snapshot: the whole store at some revision
    data.json.journal      batches since then, appended one by one; made when it is first needed
    data.json.journal.old  the journal before, while a checkpoint writes the snapshot that will cover it
    data.json.lock         owned (flock) as long as a process uses the store; never removed
    data.json.reserve      real bytes to give up when the disk is full, so that deletions get through
    data.json[…].tmp-N     files that are being written; removed at the next start if they are left behind

A snapshot may be written at any time, and a journal may go once a durable snapshot covers it: `recovery` has the rule
by which they are read, and any cut between two steps leaves files that it reads to the committed state.

Two threads come here: the sync thread (all but `checkpoint`) and the checkpoint thread. They meet at `data.json`,
which is only replaced under `_snapshot_turn`.
"""

import errno
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

from leasehold.engines.base import MakeIncarnation
from leasehold.engines.disk import Disk, WriteError, close_quietly, replace_file
from leasehold.engines.journal import HEADER_BYTES, JournalWriter
from leasehold.engines.recovery import Paths, Report, in_use, read_files, translated
from leasehold.engines.snapshot import Snapshot, StoredState
from leasehold.limits import KIB, MIB

log = structlog.get_logger(__name__)

RESERVE_BYTES: Final = 1 * MIB
_RESERVE_CHUNK: Final = bytes(256 * KIB)


class Storage:
    """The files of one store, owned. See the module for what they are.

    `failed`: the files may hold what memory does not. Nothing is written any more until `start_afresh` has
    succeeded. `reserve_spent`: the disk was full and the reserve was given up.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._paths = Paths(path)
        self._disk = disk
        self._lock: int | None = None
        self._snapshot_turn = threading.Lock()
        self._journal: JournalWriter | None = None
        self.has_old_journal = False
        """There may be a `journal.old`."""
        self._incarnation = ""
        self.revision = 0
        """The last revision that is known to be durable."""
        self.snapshot_revision = 0
        self.failed = False
        self._in_doubt = False
        """As `failed`, for the sync thread; also while it writes."""
        self._stuck_by = errno.EIO
        """Why the last `start_afresh` failed."""
        self.reserve_spent = False

    @property
    def journal_bytes(self) -> int:
        """Of records, old ones included, in the journal in use."""
        return 0 if self._journal is None else self._journal.end - HEADER_BYTES

    @property
    def settled(self) -> bool:
        """The snapshot holds everything."""
        return self.snapshot_revision == self.revision

    # Start and end --------------------------------------------------------------------------------------------

    def open(self, now: int, make_incarnation: MakeIncarnation) -> StoredState:
        """Own the files and read them. The journals are not appended to again: see `settle` and `rotate`.

        A store without an incarnation gets one, which `settle` makes durable.
        """
        with translated(self._paths.data.name):
            self._own()
            state, report = read_files(self._disk, self._paths, now)
            self._sweep()
            self._secure(report)
        self.revision = state.revision
        self.snapshot_revision = report.snapshot_revision if state.incarnation and not report.foreign else -1
        state.incarnation = self._incarnation = state.incarnation or make_incarnation()
        self.has_old_journal = any(journal.name == self._paths.old_journal.name for journal in report.journals)
        return state

    def close(self) -> None:
        """Let go of the files as they are."""
        self._close_journal()
        if self._lock is not None:
            close_quietly(self._disk, self._lock)
            self._lock = None

    def _own(self) -> None:
        try:
            self._lock = self._disk.lock(self._paths.lock)
        except BlockingIOError as error:
            raise in_use(self._paths) from error

    def _sweep(self) -> None:
        for name in self._disk.names(self._paths.folder):
            if self._paths.is_temporary(name):
                self._disk.unlink(self._paths.folder / name)

    def _secure(self, report: Report) -> None:
        """Make durable what was read: a killed process may have left it in memory only, and readers will see it."""
        for journal in report.journals:
            file = self._disk.open(self._paths.folder / journal.name, writable=True)
            try:
                if journal.torn_bytes:
                    log.warning("torn end cut off", file=journal.name, offset=journal.end, bytes=journal.torn_bytes)
                    self._disk.truncate(file, journal.end)
                self._disk.fsync(file)
            finally:
                close_quietly(self._disk, file)
        self._sync_data()
        self._disk.sync_folder(self._paths.folder)

    def _sync_data(self) -> None:
        try:
            file = self._disk.open(self._paths.data)
        except FileNotFoundError:
            return
        try:
            self._disk.fsync(file)
        finally:
            close_quietly(self._disk, file)

    # Commits --------------------------------------------------------------------------------------------------

    def append(self, first_revision: int, last_revision: int, record: bytes, *, frees_space: bool) -> None:
        """Make a batch durable by the journal. A batch that frees space may spend the reserve."""
        self._refuse_if_failed()
        with self._failing_unless_unchanged():
            self._with_reserve(lambda: self._append(first_revision, record), allowed=frees_space)
        self.revision = last_revision

    def write_snapshot(self, snapshot: Snapshot, *, frees_space: bool) -> None:
        """Make a batch durable by a new `data.json` that holds it."""
        self._refuse_if_failed()
        with self._failing_unless_unchanged():
            self._with_reserve(lambda: self._replace_data(snapshot), allowed=frees_space)
        self.revision = snapshot.revision

    def _append(self, first_revision: int, record: bytes) -> None:
        if self._journal is None:
            temporary = self._paths.temporary(self._paths.journal)
            self._journal = JournalWriter.create(
                self._disk, self._paths.journal, temporary, first_revision - 1, self._incarnation
            )
        self._journal.append(record)

    def _replace_data(self, snapshot: Snapshot) -> None:
        with self._snapshot_turn:
            if snapshot.revision < self.snapshot_revision:
                return  # a later one is there already
            temporary = self._paths.temporary(self._paths.data)
            replace_file(self._disk, self._paths.data, temporary, snapshot.chunks())
            self.snapshot_revision = snapshot.revision

    # Checkpoints ----------------------------------------------------------------------------------------------

    def rotate(self) -> None:
        """Step 1, in the writers' turn: what was appended so far becomes the old journal; the next append begins one.

        If an old journal is still there, an earlier checkpoint failed: this one will cover both, and only the old
        one goes.
        """
        self._refuse_if_failed()
        if self.has_old_journal:
            return
        with self._failing_unless_unchanged(), _write_errors():
            self._close_journal()
            self.has_old_journal = True
            try:
                self._disk.rename(self._paths.journal, self._paths.old_journal)
            except FileNotFoundError:
                return
            self._disk.sync_folder(self._paths.folder)

    def checkpoint(self, snapshot: Snapshot) -> None:
        """Steps 2 and 3, beside the writers: a new `data.json`, then the old journal goes. May be tried again."""
        self._replace_data(snapshot)
        with _write_errors():
            self._unlink_if_there(self._paths.old_journal)
            self._disk.sync_folder(self._paths.folder)
        self.has_old_journal = False

    def settle(self, snapshot: Snapshot) -> None:
        """A checkpoint without writers: leave nothing but `data.json`. `snapshot` is all that is durable.

        If it fails, nothing is lost, but journals that are not this process's own are in the way: `failed` is set.
        """
        self._refuse_if_failed()
        self.failed = True
        if not self.settled:
            self._replace_data(snapshot)
        self._drop_journals(snapshot.revision)
        self.failed = False

    def start_afresh(self, snapshot: Snapshot) -> None:
        """After a failure, make the files what memory is, with new files only; what was unknown is dropped.

        Does nothing if another call has done it. Raises WriteError if it could not be done.
        """
        if not self.failed:
            return
        if snapshot.revision < self.revision:
            raise WriteError(OSError("the snapshot is older than what is durable"), nothing_changed=True)
        try:
            self._with_reserve(lambda: self._replace_data(snapshot), allowed=True)
            self._drop_journals(snapshot.revision)
        except WriteError as error:
            self._stuck_by = errno.ENOSPC if error.full else errno.EIO
            raise
        self.failed = self._in_doubt = False

    def _drop_journals(self, revision: int) -> None:
        """The snapshot of `revision` holds all that is durable."""
        self._close_journal()
        with _write_errors():
            # The newer one first: without it the older one still follows the snapshot without a gap.
            self._unlink_if_there(self._paths.journal)
            self._unlink_if_there(self._paths.old_journal)
            self._disk.sync_folder(self._paths.folder)
        self.has_old_journal = False
        self.revision = revision

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _unlink_if_there(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            self._disk.unlink(path)

    # Failures -------------------------------------------------------------------------------------------------

    def make_reserve(self) -> None:
        """Write the reserve (again): also the proof, by real bytes, that the disk takes more. Raises WriteError."""
        chunks = itertools.repeat(_RESERVE_CHUNK, RESERVE_BYTES // len(_RESERVE_CHUNK))
        replace_file(self._disk, self._paths.reserve, self._paths.temporary(self._paths.reserve), chunks)
        self.reserve_spent = False

    def _with_reserve(self, write: Callable[[], None], *, allowed: bool) -> None:
        try:
            write()
        except WriteError as error:
            if not (allowed and error.full and error.nothing_changed and self._spend_reserve()):
                raise
            write()

    def _spend_reserve(self) -> bool:
        """Give up the reserve. True if that made room."""
        self.reserve_spent = True
        try:
            self._disk.unlink(self._paths.reserve)
            self._disk.sync_folder(self._paths.folder)
        except OSError:
            return False
        return True

    def _refuse_if_failed(self) -> None:
        self.failed = self.failed or self._in_doubt  # what came before ended in a way that was not foreseen
        if self.failed:
            raise WriteError(OSError(self._stuck_by, "the files wait for a fresh start"), nothing_changed=True)

    @contextmanager
    def _failing_unless_unchanged(self) -> Iterator[None]:
        """Whatever goes wrong inside leaves the files in doubt, unless it says that nothing has changed.

        They are in doubt until the end, so that it does not matter where an exception comes from: were a batch on disk
        that memory does not have, the next one would take the same revisions, and the journal could not be read.
        """
        self._in_doubt = True
        try:
            yield
        except WriteError as error:
            is_spoiled = self._journal is not None and self._journal.spoiled
            self.failed = self.failed or is_spoiled or not error.nothing_changed
            self._in_doubt = False
            raise
        self._in_doubt = False


@contextmanager
def _write_errors() -> Iterator[None]:
    """Failures while names change: whether they did is unknown."""
    try:
        yield
    except OSError as error:
        raise WriteError(error, nothing_changed=False) from error
