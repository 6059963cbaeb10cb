"""The files of a store and the order in which they change. Blocking code, without event loop or records in memory.

    data.json              the snapshot: the whole store at some revision
    data.json.journal      batches since then, appended one by one; created when it is first needed
    data.json.journal.old  the previous journal, while a checkpoint writes the snapshot that will cover it
    data.json.lock         locked (flock) as long as a process uses the store; never removed
    data.json.reserve      disk space that is released when the disk is full, so that deletions can be written
    data.json[…].tmp-N     files that are being written; the next start removes leftover ones
    data.json[…].replaced-N  files of another program that replaced a file of the store while it was in use

A snapshot may be written at any time, and a journal may be removed once a durable snapshot has all of its changes.
`recovery` has the rule by which the files are read. After a power cut between any two steps, it reads the committed
state from the files.

Two threads call this module: the sync thread (everything except `checkpoint`) and the checkpoint thread. Both change
`data.json` and the old journal, so these are replaced and removed only under `_data_mutex`.
"""

import errno
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog

from leasehold.engines.base import MakeIncarnation
from leasehold.engines.file.disk import Disk, Identity, WriteError, rename_durably, replace_file, write_errors
from leasehold.engines.file.failure import Failure
from leasehold.engines.file.journal import HEADER_BYTES, JournalWriter, encode_large_record
from leasehold.engines.file.ownership import Ownership
from leasehold.engines.file.probe import check_that_files_can_be_replaced, obstacles_as_unavailable
from leasehold.engines.file.recovery import Paths, as_unavailable, lock_refusal, read_files
from leasehold.engines.file.reserve import Reserve
from leasehold.engines.file.snapshot import snapshot_text
from leasehold.engines.file.start_sync import sync_files
from leasehold.engines.state import Snapshot, StoredState
from leasehold.model import Change
from leasehold.progress import Progress

log = structlog.get_logger(__name__)


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
        self._journal: JournalWriter | None = None
        """The file `data.json.journal`, if there is one."""
        self.has_old_journal = False
        """There may be a `journal.old`."""
        self.revision = 0
        """The last revision that is known to be durable."""
        self.snapshot_revision = 0
        self._failure = Failure()
        self._has_stopped_checkpoints = False

    @property
    def failed(self) -> bool:
        """The files may differ from memory. Nothing is written until `rewrite_all` has succeeded."""
        return self._failure.failed

    @property
    def journal_bytes(self) -> int:
        """The size of all records in the current journal."""
        return 0 if self._journal is None else self._journal.end - HEADER_BYTES

    @property
    def lost(self) -> bool:
        """Another process has used the files. Nothing is written until a restart."""
        return self._owner.lost

    @property
    def names(self) -> Sequence[str]:
        """The names of the files that have the store: `data.json`, and the journals in use."""
        paths = self._paths
        used = {paths.data: True, paths.old_journal: self.has_old_journal, paths.journal: self._journal is not None}
        return [path.name for path, is_used in used.items() if is_used]

    @property
    def has_changes_in_journals(self) -> bool:
        """The files are sound, and only together with its journals `data.json` is complete."""
        return not self.failed and 0 <= self.snapshot_revision < self.revision

    @property
    def needs_no_checkpoint(self) -> bool:
        """The snapshot has everything, and there is nothing in a journal."""
        return self.snapshot_revision == self.revision and not self.has_old_journal and not self.journal_bytes

    # Start and end --------------------------------------------------------------------------------------------

    def open(self, now: int, make_incarnation: MakeIncarnation) -> StoredState:
        """Own the files and read them.

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
        self.progress.begin(f"reading {self._paths.data.name}", 0 if data is None else data.size)
        state, report = read_files(self._disk, self._paths, now, self.progress)
        self.progress.begin("syncing the files")
        self._journal = sync_files(self._disk, self._paths, self._owner.files, report)
        self.has_old_journal = any(journal.name == self._paths.old_journal.name for journal in report.journals)
        copy = check_that_files_can_be_replaced(self._disk, self._paths)
        self._owner.files.put(self._paths.data, copy or data)
        self.revision = state.revision
        is_ours = not report.foreign and all(
            incarnation == state.incarnation != "" for incarnation in (state.incarnation, *report.incarnations)
        )
        self.snapshot_revision = report.snapshot_revision if is_ours else -1
        state.incarnation = self._incarnation = state.incarnation or make_incarnation()
        return state

    def close(self) -> None:
        """Release the files without changing them."""
        self._close_journal()
        self._owner.release()

    # Ownership ------------------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Check that the files are still those that this process wrote. Called every second. Raises WriteError.

        If a file was removed or replaced, this sets `failed`, so that `rewrite_all` writes all files again.
        """
        with self._failure.unless_unchanged(self._is_spoiled):
            self._check_owner()
            if self.failed or not self._data_mutex.acquire(blocking=False):
                return  # a checkpoint is writing; the next call checks
            try:
                self._find_changes()
            finally:
                self._data_mutex.release()

    def _check_owner(self, *, recent_is_enough: bool = False) -> None:
        """Raise WriteError unless this process owns the files and they exist."""
        if not self._owner.check(recent_is_enough=recent_is_enough):
            return
        journal = self._paths.journal
        with write_errors():
            missing = [path.name for path in self._paths.kept if self._owner.files.is_missing(path)]
            if self._journal is not None and not missing and self._journal.has_other_writer(journal):
                raise self._owner.give_up("the lock file was removed and another process wrote to the journal")
        if missing:
            raise WriteError(OSError(errno.ENOENT, f"{missing[0]} was removed"), nothing_changed=False)

    def _find_changes(self) -> None:
        with write_errors():
            for path in self._paths.kept:
                if self._owner.files.is_untouched(path):
                    continue
                self._failure.failed = True
                done = "removed" if self._owner.files.is_missing(path) else "changed"
                log.error(
                    "another program has touched a file of the store; all files are rewritten", file=path.name, by=done
                )

    # Commits --------------------------------------------------------------------------------------------------

    def append(self, first_revision: int, last_revision: int, record: bytes, *, frees_space: bool) -> None:
        """Make a batch durable in the journal. A batch that frees space may spend the reserve."""
        self._refuse_unless_ready(frees_space=frees_space)
        with self._failure.unless_unchanged(self._is_spoiled):
            self._check_owner(recent_is_enough=True)
            self.reserve.spend_for(lambda: self._append(first_revision, record), allowed=frees_space)
            self._check_owner()
        self.revision = last_revision

    def append_large(
        self, first_revision: int, last_revision: int, changes: Sequence[Change], *, frees_space: bool
    ) -> None:
        """As `append`. The record is made here, because the event loop must not wait for it."""
        try:
            record = encode_large_record(first_revision, changes)
        except MemoryError as error:
            raise WriteError(OSError(errno.ENOMEM, "no memory for the record"), nothing_changed=True) from error
        self.append(first_revision, last_revision, record, frees_space=frees_space)

    def write_snapshot(self, snapshot: Snapshot, *, frees_space: bool) -> None:
        """Make a batch durable with a new `data.json` that includes it."""
        self._refuse_unless_ready(frees_space=frees_space)
        with self._failure.unless_unchanged(self._is_spoiled):
            self._check_owner(recent_is_enough=True)
            self.reserve.spend_for(lambda: self._replace_data(snapshot), allowed=frees_space)
            self._check_owner()
        self.revision = snapshot.revision

    def _append(self, first_revision: int, record: bytes) -> None:
        if self._journal is None:
            self._owner.files.keep_what_others_put(self._paths.journal)
            temporary = self._paths.temporary(self._paths.journal)
            self._journal = JournalWriter.create(
                self._disk,
                self._paths.journal,
                temporary,
                first_revision - 1,
                self._incarnation,
                before_rename=partial(self._owner.files.may_become, self._paths.journal),
            )
            with write_errors():
                self._owner.files.put(self._paths.journal, self._journal.identity)
        self._journal.append(record)

    def _replace_data(self, snapshot: Snapshot, chunks: Iterable[bytes] | None = None) -> None:
        """`chunks`: the text of the snapshot, if something else is to be done while it is taken."""
        with self._data_mutex:
            if snapshot.revision < self.snapshot_revision:
                return  # there is a later one already
            identity = replace_file(
                self._disk,
                self._paths.data,
                self._paths.temporary(self._paths.data),
                snapshot_text(snapshot) if chunks is None else chunks,
                before_rename=self._before_data_is_replaced,
            )
            self._owner.files.put(self._paths.data, identity)
            self.snapshot_revision = snapshot.revision

    def _replace_data_slowly(self, snapshot: Snapshot) -> None:
        """Replace it, and say how far it has come."""
        records = sum(len(part.names) + len(part.removals) for part in snapshot.kinds)
        self.progress.begin(f"writing {self._paths.data.name}", records, "lines")
        self._replace_data(snapshot, self.progress.counting_lines(snapshot_text(snapshot)))

    def _before_data_is_replaced(self, identity: Identity) -> None:
        self._owner.check_only()
        self._owner.files.keep_what_others_put(self._paths.data)
        self._owner.files.may_become(self._paths.data, identity)

    # Checkpoints ----------------------------------------------------------------------------------------------

    def rotate(self) -> None:
        """Step 1, on the sync thread: the journal becomes the old journal, and the next append begins a new one.

        If there is an old journal, an earlier checkpoint failed. Then the snapshot of this one has the records of both
        journals, and only the old one is removed.
        """
        self._refuse_if_failed()
        if self.has_old_journal or self._journal is None:
            return
        with self._failure.unless_unchanged(self._is_spoiled):
            self._check_owner()
            self._owner.files.keep_what_others_put(self._paths.old_journal)
            self.has_old_journal = True
            self._owner.files.may_become(self._paths.journal, None)
            with write_errors():
                self._owner.files.may_become(self._paths.old_journal, identity := self._journal.identity)
            rename_durably(self._disk, self._paths.journal, self._paths.old_journal)
        self._owner.files.put(self._paths.journal, None)
        self._owner.files.put(self._paths.old_journal, identity)
        self._close_journal()

    def checkpoint(self, snapshot: Snapshot) -> None:
        """Steps 2 and 3, during commits: write a new `data.json`, then remove the old journal, if there is one.

        If the reserve is large enough, it is spent for this, because the removal of the old journal frees more space.
        May be repeated, and may be called without step 1.
        """
        try:
            try:
                self._replace_data(snapshot, self._until_stopped(snapshot_text(snapshot)))
            except WriteError as error:
                is_worth_it = self.has_old_journal and error.full and error.nothing_changed
                if not (is_worth_it and self.reserve.is_enough_for(snapshot)):
                    raise
                self.reserve.spend_for(lambda: self._replace_data(snapshot), allowed=True)
            if self.has_old_journal:
                self._remove_old_journal()
        finally:
            self.reserve.make_again()

    def stop_checkpoints(self) -> None:
        """Let a checkpoint that is writing `data.json` fail, and all later ones. May be called on any thread."""
        self._has_stopped_checkpoints = True

    def _until_stopped(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self._has_stopped_checkpoints:
                raise OSError(errno.ECANCELED, "the service stops")
            yield chunk

    def _remove_old_journal(self) -> None:
        with self._data_mutex:
            self._owner.check_only()
            with write_errors():
                self._remove(self._paths.old_journal)
                self._disk.sync_folder(self._paths.folder)
            self.has_old_journal = False

    def checkpoint_alone(self, snapshot: Snapshot) -> None:
        """A checkpoint without concurrent commits: only `data.json` is left. `snapshot` must have all durable changes.

        If it fails, nothing is lost. It sets `failed` if there is no journal of this store that could be continued.
        """
        self._refuse_if_failed()
        is_first = self.snapshot_revision < 0
        try:
            with self._failure.unless_unchanged(self._is_spoiled):
                self._check_owner()
                if self.snapshot_revision != self.revision:
                    self.reserve.spend_for(lambda: self._replace_data_slowly(snapshot), allowed=True)
                self._drop_journals(snapshot.revision)
        except WriteError:
            self._failure.failed = self.failed or is_first
            raise
        finally:
            self.reserve.make_again()

    def checkpoint_at_start(self, snapshot: Snapshot) -> None:
        """As `checkpoint_alone`. Raises `unavailable` for a failure that is not transient."""
        with obstacles_as_unavailable(self._paths):
            self.checkpoint_alone(snapshot)

    def rewrite_all(self, snapshot: Snapshot) -> None:
        """After a failure, write the state in memory to new files. Changes with an unknown outcome are dropped.

        Does nothing if another call has already done it. Raises WriteError if it fails.
        """
        if not self.failed:
            return
        if snapshot.revision < self.revision:
            raise WriteError(OSError("the snapshot is older than the durable changes"), nothing_changed=True)
        try:
            self._check_owner()
            # A change with an unknown outcome may be in data.json. It is replaced, though its revision is later.
            self.snapshot_revision = min(self.snapshot_revision, snapshot.revision)
            self.reserve.spend_for(lambda: self._replace_data_slowly(snapshot), allowed=True)
            self._drop_journals(snapshot.revision)
            self._check_owner()
        except WriteError as error:
            self._failure.note_failed_rewrite(error)
            raise
        finally:
            self.reserve.make_again()
        self._failure.end()

    def _drop_journals(self, revision: int) -> None:
        """Remove the journals. The snapshot of `revision` has all durable changes."""
        self._close_journal()
        with self._data_mutex:
            self._owner.check_only()
            # The newer one first. Without it, the older one still follows the snapshot without a gap.
            for path in (self._paths.journal, self._paths.old_journal):
                self._owner.files.keep_what_others_put(path)
                with write_errors():
                    self._remove(path)
            with write_errors():
                self._disk.sync_folder(self._paths.folder)
            self.has_old_journal = False
        self.revision = revision

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _remove(self, path: Path) -> None:
        self._owner.files.may_become(path, None)
        with suppress(FileNotFoundError):
            self._disk.unlink(path)
        self._owner.files.put(path, None)

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

    def _is_spoiled(self) -> bool:
        return self._journal is not None and self._journal.spoiled
