"""The files of a store and the order in which they change. Blocking code, without event loop or records in memory.

    data.json              the snapshot: the whole namespace `default` at some revision
    data.json.namespaces   the snapshot of the other namespaces, if there are any
    data.json.journal      batches since then, appended one by one; created when it is first needed
    data.json.journal.old  the previous journal, while a checkpoint writes the snapshot that will cover it
    data.json.lock         locked (flock) as long as a process uses the store; never removed
    data.json.reserve      disk space that is released when the disk is full, so that deletions can be written
    data.json[…].tmp-N     files that are being written; the next start removes leftover ones
    data.json[…].replaced-N  files of another program that replaced a file of the store while it was in use

A snapshot may be written at any time, and a journal may be removed once durable snapshots have all of its changes.
Each of the two snapshots says up to where it is complete, so they need not be written at the same moment. `recovery`
has the rule by which the files are read. After a power cut between any two steps, it reads the committed state from the
files.

Two threads change the files: the sync thread (everything except `checkpoint`) and the checkpoint thread. Both change
the snapshots and the old journal, so these are replaced and removed only under one mutex.
"""

import errno
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from leasehold.engines.base import MakeIncarnation
from leasehold.engines.file.appends import AnyAppend, Group, encode_together, take_waiting, write_all
from leasehold.engines.file.disk import Disk, WriteError, write_errors
from leasehold.engines.file.failure import Failure
from leasehold.engines.file.journals import Journals
from leasehold.engines.file.namespaces import NamespacesSnapshot, StoredNamespaces
from leasehold.engines.file.ownership import Ownership
from leasehold.engines.file.probe import check_that_files_can_be_replaced, obstacles_as_unavailable
from leasehold.engines.file.recovery import Paths, as_unavailable, lock_refusal, read_files
from leasehold.engines.file.reserve import Reserve
from leasehold.engines.file.snapshot_files import SnapshotFiles
from leasehold.engines.file.start_sync import sync_files
from leasehold.engines.state import Snapshot, StoredState
from leasehold.progress import Progress


class Storage:
    """The files of one store, which this process owns. The docstring of the module lists them."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._paths = Paths(path)
        self._disk = disk
        self._incarnation = ""
        self._data_mutex = threading.Lock()
        self._owner = Ownership(disk, self._paths, self._data_mutex)
        self.progress = Progress()
        """The progress of `open`, and of a checkpoint without concurrent commits."""
        self.reserve = Reserve(disk, self._paths, self._owner)
        self._journals = Journals(disk, self._paths, self._owner, self._data_mutex)
        self.revision = 0
        """The last revision that is known to be durable."""
        self.sequence = 0
        """The last change of the other namespaces that is known to be durable."""
        self.created_at = 0
        """When the store was used here for the first time: the lock file is never written. Microseconds."""
        self.log = ""
        """Identifies the numbering of these changes."""
        self.snapshots = SnapshotFiles(disk, self._paths, self._owner, self._data_mutex)
        self._failure = Failure()

    @property
    def failed(self) -> bool:
        """The files may differ from memory. Nothing is written until `rewrite_all` has succeeded."""
        return self._failure.failed

    @property
    def journal_bytes(self) -> int:
        """The size of all records in the current journal."""
        return self._journals.size

    @property
    def has_old_journal(self) -> bool:
        """There may be a `journal.old`."""
        return self._journals.has_old

    @property
    def lost(self) -> bool:
        """Another process has used the files. Nothing is written until a restart."""
        return self._owner.lost

    @property
    def names(self) -> Sequence[str]:
        """The names of the files that have the store: `data.json`, and the journals in use."""
        return [path.name for path in (self._paths.data, *self._journals.paths)]

    @property
    def snapshot_revision(self) -> int:
        """The revision of `data.json`."""
        return self.snapshots.revision

    @property
    def has_changes_in_journals(self) -> bool:
        """The files are sound, and only together with the journals the snapshots are complete."""
        if self.failed or self.snapshots.revision < 0:
            return False
        return self.snapshots.revision < self.revision or self.snapshots.sequence < self.sequence

    @property
    def needs_no_checkpoint(self) -> bool:
        """The snapshots have everything, and there is nothing in a journal."""
        return self.snapshots.revision == self.revision and not self.has_old_journal and not self.journal_bytes

    # Start and end --------------------------------------------------------------------------------------------

    def open(self, now: int, make_incarnation: MakeIncarnation) -> tuple[StoredState, StoredNamespaces]:
        """Own the files and read them: `default`, and the other namespaces.

        A store without an incarnation gets one, which `checkpoint_alone` makes durable. Raises `unavailable`.
        """
        with as_unavailable(self._paths.data.name, "opened"), suppress(FileNotFoundError):
            # First, so that no lock file is created beside a path that is not a file.
            self._disk.close(self._disk.open(self._paths.data))
        try:
            self._owner.take()
        except OSError as error:
            raise lock_refusal(self._paths, error) from error
        with as_unavailable(self._paths.data.name, "opened"):
            data = self._disk.identity(self._paths.data)
            others = self._disk.identity(self._paths.namespaces)
            lock = self._disk.identity(self._paths.lock)
        self.created_at = 0 if lock is None else lock.modified_ns // 1000
        self.progress.begin(f"reading {self._paths.data.name}", 0 if data is None else data.size)
        state, report = read_files(self._disk, self._paths, now, self.progress)
        self.progress.begin("syncing the files")
        self._owner.files.put(self._paths.namespaces, others)
        has_old = any(journal.name == self._paths.old_journal.name for journal in report.journals)
        self._journals.resume(
            sync_files(self._disk, self._paths, self._owner.files, report, state.incarnation),
            report.namespaces.sequence,
            has_old=has_old,
        )
        copy = check_that_files_can_be_replaced(self._disk, self._paths)
        self._owner.files.put(self._paths.data, copy or data)
        self.revision = state.revision
        namespaces = report.namespaces
        self.sequence = namespaces.sequence
        self.log = namespaces.log = namespaces.log or make_incarnation()
        is_ours = not report.foreign and all(
            incarnation == state.incarnation != "" for incarnation in (state.incarnation, *report.incarnations)
        )
        self.snapshots.revision = report.snapshot_revision if is_ours else -1
        self.snapshots.sequence = report.namespaces_sequence
        state.incarnation = self._incarnation = state.incarnation or make_incarnation()
        return state, namespaces

    def close(self) -> None:
        """Release the files without changing them."""
        self._journals.close()
        self._owner.release()

    # Ownership ------------------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Check that the files are still those that this process wrote. Called every second. Raises WriteError.

        If a file was removed or replaced, this sets `failed`, so that `rewrite_all` writes all files again.
        """
        with self._failure.unless_unchanged(self._journals.is_spoiled):
            self._check_owner()
            if self.failed or not self._data_mutex.acquire(blocking=False):
                return  # a checkpoint is writing; the next call checks
            try:
                self._failure.failed = self._owner.has_lost_files()
            finally:
                self._data_mutex.release()

    def _check_owner(self, *, recent_is_enough: bool = False) -> None:
        """Raise WriteError unless this process owns the files and they exist."""
        if not self._owner.check(recent_is_enough=recent_is_enough):
            return
        with write_errors():
            missing = [path.name for path in self._paths.kept if self._owner.files.is_missing(path)]
            if not missing and self._journals.has_other_writer():
                raise self._owner.give_up("the lock file was removed and another process wrote to the journal")
        if missing:
            raise WriteError(OSError(errno.ENOENT, f"{missing[0]} was removed"), nothing_changed=False)

    # Commits --------------------------------------------------------------------------------------------------

    def append(self, group: Group, append: AnyAppend) -> None:
        """Make a batch durable in the journal, and with it all that wait in its group. Raises its error."""
        if not append.is_over:
            write_all(take_waiting(group, append) if group else [append], self._append_together)
        if append.error is not None:
            raise append.error

    def _append_together(self, appends: Sequence[AnyAppend]) -> None:
        frees_space = appends[0].frees_space and all(append.frees_space for append in appends)
        self._refuse_unless_ready(frees_space=frees_space)
        record, revision, sequence = encode_together(appends, self.revision, self.sequence)
        with self._failure.unless_unchanged(self._journals.is_spoiled):
            self._check_owner(recent_is_enough=True)
            self.reserve.spend_for_commit(
                lambda: self._journals.append(record, self.revision, self._incarnation), allowed=frees_space
            )
            self._check_owner()
        self.revision, self.sequence = revision, sequence
        for append in appends:
            append.is_over = True

    def write_snapshot(self, snapshot: Snapshot, *, frees_space: bool) -> None:
        """Make a batch of `default` durable with a new `data.json` that includes it."""
        self._write(lambda: self.snapshots.replace_data(snapshot), frees_space=frees_space)
        self.revision = snapshot.revision

    def write_namespaces(self, snapshot: NamespacesSnapshot) -> None:
        """Make changes of the other namespaces durable with a new file that includes them."""
        self._write(lambda: self.snapshots.replace_namespaces(snapshot), frees_space=False)
        self.sequence = snapshot.sequence

    def _write(self, write: Callable[[], None], *, frees_space: bool) -> None:
        self._refuse_unless_ready(frees_space=frees_space)
        with self._failure.unless_unchanged(self._journals.is_spoiled):
            self._check_owner(recent_is_enough=True)
            self.reserve.spend_for_commit(write, allowed=frees_space)
            self._check_owner()

    # Checkpoints ----------------------------------------------------------------------------------------------

    def rotate(self) -> None:
        """Step 1, on the sync thread: the journal becomes the old journal, and the next append begins a new one.

        If there is an old journal, an earlier checkpoint failed. Then the snapshot of this one has the records of both
        journals, and only the old one is removed.
        """
        self._refuse_if_failed()
        if self._journals.has_old or self._journals.current is None:
            return
        with self._failure.unless_unchanged(self._journals.is_spoiled):
            self._check_owner()
            self._journals.rotate(self.sequence)

    def checkpoint(
        self, snapshot: Snapshot | None, others: NamespacesSnapshot | None = None, *, removes_journal: bool = True
    ) -> None:
        """Steps 2 and 3, during commits: write new snapshots, then remove the old journal, if there is one.

        None: the file is complete. If the reserve is large enough, it is spent for this, because the removal of the old
        journal frees more space. May be repeated, and may be called without step 1. Without `removes_journal`, the old
        journal is kept.
        """
        removes = self._journals.has_old and removes_journal
        with self.reserve.checkpoints:
            try:
                self._replace_snapshots(snapshot, others, may_spend=removes)
                if removes:
                    self._journals.remove_old(self.snapshots.sequence)
            finally:
                self.reserve.make_again()

    def _replace_snapshots(
        self, snapshot: Snapshot | None, others: NamespacesSnapshot | None, *, may_spend: bool
    ) -> None:
        try:
            self.snapshots.replace(snapshot, others, self.snapshots.until_stopped)
        except WriteError as error:
            if not (may_spend and error.full and error.nothing_changed):
                raise
            if not self.reserve.is_enough_for(self.snapshots.texts(snapshot, others)):
                raise
            self.reserve.spend_for(lambda: self.snapshots.replace(snapshot, others), allowed=True)

    def stop_checkpoints(self) -> None:
        """Let a checkpoint that is writing `data.json` fail, and all later ones. May be called on any thread."""
        self.snapshots.has_stopped = True

    def checkpoint_alone(self, snapshot: Snapshot, others: NamespacesSnapshot | None = None) -> None:
        """A checkpoint without concurrent commits: only the snapshots are left, which must have all durable changes.

        If it fails, nothing is lost. It sets `failed` if there is no journal of this store that could be continued.
        """
        self._refuse_if_failed()
        is_first = self.snapshots.revision < 0
        try:
            with self._failure.unless_unchanged(self._journals.is_spoiled):
                self._check_owner()
                needs_data = self.snapshots.revision != self.revision
                needs_others = others is not None and self.snapshots.sequence != self.sequence
                if needs_data or needs_others:
                    self._replace_slowly(snapshot if needs_data else None, others if needs_others else None)
                self._drop_journals(snapshot.revision)
        except WriteError:
            self._failure.failed = self.failed or is_first
            raise
        finally:
            self.reserve.make_again()

    def _replace_slowly(self, snapshot: Snapshot | None, others: NamespacesSnapshot | None) -> None:
        """Replace the snapshots, and say how far it has come."""
        self.progress.begin("writing " + self._paths.data.name, self.snapshots.lines(snapshot, others), "lines")
        self.reserve.spend_for(
            lambda: self.snapshots.replace(snapshot, others, self.progress.counting_lines), allowed=True
        )

    def checkpoint_at_start(self, snapshot: Snapshot, others: NamespacesSnapshot | None = None) -> None:
        """As `checkpoint_alone`. Raises `unavailable` for a failure that is not transient."""
        with obstacles_as_unavailable(self._paths):
            self.checkpoint_alone(snapshot, others)

    def rewrite_all(self, snapshot: Snapshot, others: NamespacesSnapshot | None = None) -> None:
        """After a failure, write the state in memory to new files. Changes with an unknown outcome are dropped.

        `others`: None if there were never other namespaces. Does nothing if another call has already done it. Raises
        WriteError if it fails.
        """
        if not self.failed:
            return
        if snapshot.revision < self.revision or (0 if others is None else others.sequence) < self.sequence:
            raise WriteError(OSError("the snapshot is older than the durable changes"), nothing_changed=True)
        try:
            self._check_owner()
            # A change with an unknown outcome may be in data.json. It is replaced, though its revision is later.
            self.snapshots.revision = min(self.snapshots.revision, snapshot.revision)
            self._replace_slowly(snapshot, others)
            self._drop_journals(snapshot.revision)
            self._check_owner()
        except WriteError as error:
            self._failure.note_failed_rewrite(error)
            raise
        finally:
            self.reserve.make_again()
        self._failure.end()

    def _drop_journals(self, revision: int) -> None:
        """Remove the journals. The snapshots have all durable changes; that of `default` is at `revision`."""
        if self.snapshots.sequence < self.sequence:
            raise WriteError(OSError("the file of the namespaces lacks durable changes"), nothing_changed=True)
        self._journals.remove_all()
        self.revision = revision

    # Failures -------------------------------------------------------------------------------------------------

    def _refuse_unless_ready(self, *, frees_space: bool) -> None:
        """Raise WriteError if a batch cannot be written, or would use the space that the reserve has freed."""
        self._refuse_if_failed()
        if self.reserve.is_spent and not frees_space:
            raise WriteError(OSError(errno.ENOSPC, "the reserve is spent"), nothing_changed=True)

    def _refuse_if_failed(self) -> None:
        self._failure.look_back()
        if self._owner.lost:
            raise WriteError(OSError(errno.ESTALE, "another process has used the store"), nothing_changed=True)
        self._failure.refuse()
