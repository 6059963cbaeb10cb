"""The volume: what all namespaces of a store in files share. Their records are in memory, each in its own space.

There is one set of files, one journal, and two threads, however many namespaces there are. `policy` says what is
written when, this module orders it, and `storage` writes it. All state here belongs to the event loop's thread.

A commit is decided and encoded by its space, made durable on the sync thread, and published by its space before it is
answered. A large one is encoded on the sync thread. This thread runs its jobs in order. So a commit waits while the
journal is rotated, and while the files are rewritten after a failure. Commits of several spaces that wait for the
thread at the same time share one record and one sync.

Results are reported in the order of the jobs. So when a job reports that the journal was rotated, everything that the
old journal has is published, and a snapshot that is taken then includes it.
"""

import asyncio
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from leasehold.engines.base import Clock, MakeIncarnation, SteadyClock, new_incarnation
from leasehold.engines.file import policy
from leasehold.engines.file.appends import AnyAppend, Group
from leasehold.engines.file.disk import Disk, OsDisk, WriteError
from leasehold.engines.file.ending import end_files
from leasehold.engines.file.job_thread import Job, JobDone, JobThread
from leasehold.engines.file.recovery import real_path, without_collector
from leasehold.engines.file.spaces import Spaces, latest_time
from leasehold.engines.file.storage import Storage
from leasehold.engines.file.write_fault import WriteFault
from leasehold.errors import unavailable
from leasehold.progress import reported

log = structlog.get_logger(__name__)

CHECKPOINT_RETRY_SECONDS: Final = 10.0
VERIFY_SECONDS: Final = 1.0
"""Between two checks that the files are still those that this process wrote."""


class Volume:
    """The volume in `path` (`data.json`). The other arguments are for tests."""

    def __init__(
        self,
        path: Path,
        *,
        disk: Disk | None = None,
        clock: Clock | None = None,
        idle_seconds: float = policy.IDLE_SECONDS,
        verify_seconds: float = VERIFY_SECONDS,
        make_incarnation: MakeIncarnation = new_incarnation,
    ) -> None:
        self.path = path
        self._own_clock = clock is None
        self.clock: Clock = clock or SteadyClock()
        self._disk: Disk = OsDisk() if disk is None else disk
        self._idle_seconds = idle_seconds
        self._verify_seconds = verify_seconds
        self.make_incarnation = make_incarnation
        self.storage: Storage | None = None
        """None unless the volume is open."""
        self.fault = WriteFault()
        self.spaces = Spaces(self)
        self._group: Group = Group()
        self.checkpointing = False
        self._checkpoint_is_small = False
        """The checkpoint under way writes small files, so a commit may wait for it."""
        self._retry_checkpoint_at = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._verify_timer: asyncio.TimerHandle | None = None
        self.last_commit_at = -math.inf
        """When the last commit ended."""
        self._complete_at = 0.0
        """While the idle timer runs: `data.json` has all changes up to this time, or will have them soon."""
        self.commits = 0
        """The number of finished commits. The idle timer compares it to find out whether the lanes were idle."""

    @property
    def journal_bytes(self) -> int:
        """See `Storage.journal_bytes`."""
        return 0 if self.storage is None else self.storage.journal_bytes

    # Start and end --------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """See `Space.open`, for all spaces. Idempotent."""
        if self.storage is not None:
            return
        self.loop = asyncio.get_running_loop()
        self.sync = JobThread("leasehold-sync", self.loop)
        self.checkpointer = JobThread("leasehold-checkpoint", self.loop)
        storage = Storage(real_path(self.path), self._disk)
        self.fault.end()
        self._retry_checkpoint_at = 0.0
        try:
            with reported("the store is being opened", storage.progress.figures):
                await self.sync.call(partial(self._load, storage))
        except BaseException:
            await self.release(storage)
            raise
        self.storage = storage
        if not storage.needs_no_checkpoint:
            self.start_checkpoint(storage)
        # The start does not wait for it, but the sync thread makes it before the first commit.
        self.do(storage.reserve.ensure, self._reserve_ensured)
        self._verify_later()

    def _load(self, storage: Storage) -> None:
        """On the sync thread: read the files. Write a checkpoint if the store is small, or its incarnation is new."""
        state, namespaces = storage.open(self.clock(), self.make_incarnation)
        storage.progress.begin("indexing the entries")
        if self._own_clock:
            self.clock = SteadyClock(max(map(latest_time, (state, *namespaces.states.values()))))
        with without_collector():
            self.spaces.load(state, namespaces, storage.created_at)
        if policy.is_small(self.spaces.text_bytes) or storage.snapshot_revision < 0:
            try:
                storage.checkpoint_at_start(*self.spaces.snapshots(storage.log))
            except WriteError as error:
                # Everything was read, so reads can be served. The next commit, or `recover`, rewrites the files.
                self.fault.note(error)

    async def close(self) -> None:
        """See `Space.close`, for all spaces. Idempotent."""
        storage = self.storage
        if storage is None:
            return
        self.spaces.publish_all()  # raises if stored changes are missing in memory: then the journal must be kept
        self.storage = None
        for timer in (self._idle_timer, self._verify_timer):
            if timer is not None:
                timer.cancel()
        self._idle_timer = self._verify_timer = None
        try:
            with reported("the store is being closed", storage.progress.figures):
                await end_files(storage, self.spaces, self.sync, self.checkpointer)
        finally:
            await self.release(storage)

    async def release(self, storage: Storage) -> None:
        """Close the files and end the threads."""
        await self.sync.call(storage.close)
        self.sync.stop()
        self.checkpointer.stop()

    # Commits --------------------------------------------------------------------------------------------------

    def do(self, job: Job, done: JobDone) -> None:
        """Run a job on the sync thread, after all batches that wait; see `JobThread.do`."""
        self._group = Group()
        self.sync.do(job, done)

    def append(self, storage: Storage, append: AnyAppend, done: JobDone) -> None:
        """Append a batch to the journal, together with those that wait next to it."""
        group = self._group
        self.sync.do(partial(storage.append, group, append), done)
        try:  # noqa: SIM105 - the job is queued, so from here on nothing may raise, not even a call of `suppress`
            group.append(append)
        except Exception:  # noqa: BLE001, S110 - it is not written with an earlier one, but by its own job
            pass

    def rewrite(self, storage: Storage) -> None:
        """Before a commit, if the files may differ from memory: write all of them again."""
        self.do(partial(storage.rewrite_all, *self.spaces.snapshots(storage.log)), self._rewritten)

    def after_stored_commit(self, storage: Storage) -> None:
        """Update the fault and start checkpoints after a stored batch. An exception is logged by the event loop."""
        if storage.reserve.is_spent:
            # The batch was stored in the space of the reserve. `recover` clears the fault once there is a reserve.
            self.fault.note_full()
        elif self.fault.error is not None:
            self.fault.clear()
        journal_bytes = storage.journal_bytes
        # First, because the sizes of all tables need not be added up then.
        if journal_bytes > policy.MIN_JOURNAL_BYTES and policy.is_journal_too_large(
            journal_bytes, self.spaces.text_bytes
        ):
            self.start_checkpoint(storage)
        if self._idle_timer is None and not storage.needs_no_checkpoint:
            self._complete_at = self.last_commit_at
            self._watch_for_idleness(self._idle_seconds)

    def may_replace_data(self, storage: Storage, operations: int) -> bool:
        """Whether a commit of `default` that begins now may be written to `data.json`: it is isolated.

        If a checkpoint has failed, the commit need not be isolated: on a full disk, a smaller `data.json` frees space.
        It may not wait for a checkpoint that takes long.
        """
        has_failed_checkpoint = storage.has_old_journal and not self.checkpointing
        if not (has_failed_checkpoint or policy.is_isolated(self.loop.time(), self.last_commit_at, operations)):
            return False
        return self._checkpoint_is_small or not self.checkpointing

    # Checkpoints ----------------------------------------------------------------------------------------------

    async def checkpoint(self) -> None:
        """Write everything to the files now. Returns when a checkpoint that began after this call has ended."""
        while self.storage is not None and self.checkpointing:
            await self.rest()
        if self.storage is not None:
            self._retry_checkpoint_at = 0.0
            self.start_checkpoint(self.storage)
            await self.rest()

    async def rest(self) -> None:
        """Return when both threads have done what they have to do now."""
        await self.sync.rest()
        await self.checkpointer.rest()

    def start_checkpoint(self, storage: Storage, *, rotates: bool = True) -> None:
        """Write the snapshots and remove the journal. Without `rotates`: `data.json` only; the journal continues."""
        if self.checkpointing or storage.failed or self.loop.time() < self._retry_checkpoint_at:
            return
        spaces = self.spaces
        self._checkpoint_is_small = policy.is_small(spaces.text_bytes if rotates else spaces.default.text_bytes)
        if rotates:
            self.do(storage.rotate, partial(self._write_checkpoint, storage, rotates=True))
            self.checkpointing = True
        else:
            self._write_checkpoint(storage, None, rotates=False)

    def _write_checkpoint(self, storage: Storage, error: BaseException | None, *, rotates: bool) -> None:
        """All changes in an old journal are published, so these snapshots cover it."""
        self.checkpointing = False  # if this raises, another checkpoint begins after the next commit
        if error is not None:
            self.fault.note(error)
        elif self.storage is not None:  # else `close` does it
            spaces = self.spaces
            lacks_others = storage.snapshots.sequence != spaces.sequence
            others = spaces.snapshot_of_others(storage.log) if rotates and lacks_others else None
            default = spaces.default.current()
            needs_default = not lacks_others or storage.snapshot_revision != default.revision
            snapshot = default.snapshot() if needs_default else None
            self._complete_at = self.loop.time()
            write = partial(storage.checkpoint, snapshot, others, removes_journal=rotates or not lacks_others)
            self.checkpointer.do(write, self._finish_checkpoint)
            self.checkpointing = True

    def _finish_checkpoint(self, error: BaseException | None) -> None:
        self.checkpointing = False
        storage = self.storage
        if error is not None and storage is not None:
            # Nothing is lost: both journals are kept, and commits continue.
            self._retry_checkpoint_at = self.loop.time() + CHECKPOINT_RETRY_SECONDS
            log.warning("a checkpoint failed and will be repeated", reason=str(error))
            if self._idle_timer is None:
                self._watch_for_idleness(CHECKPOINT_RETRY_SECONDS)
        if storage is not None and storage.reserve.is_spent:
            self.fault.note_full()

    def _watch_for_idleness(self, seconds: float) -> None:
        if self.storage is not None:
            self._idle_timer = self.loop.call_later(seconds, self.after_idle_time, self.commits)

    def after_idle_time(self, commits_before: int) -> None:
        """Begin a checkpoint if there was no commit since, or if `data.json` has lacked a change for too long."""
        self._idle_timer = None
        storage = self.storage
        if storage is None or storage.needs_no_checkpoint:
            return
        now, text_bytes = self.loop.time(), self.spaces.text_bytes
        default_bytes = self.spaces.default.text_bytes
        lacks_changes = storage.snapshot_revision < storage.revision
        if self.checkpointing or self.commits != commits_before:
            if lacks_changes and policy.is_stale(now - self._complete_at, default_bytes):
                self.start_checkpoint(storage, rotates=False)
            left = self.last_commit_at + self._idle_seconds - now
            self._watch_for_idleness(left if left > 0 else self._idle_seconds)
        elif policy.is_due_when_idle(text_bytes, storage.journal_bytes, has_old_journal=storage.has_old_journal):
            self.start_checkpoint(storage)
            if not self.checkpointing:
                self._watch_for_idleness(CHECKPOINT_RETRY_SECONDS)  # the last one failed; it is too early to repeat
        elif lacks_changes and policy.is_small(default_bytes):
            self.start_checkpoint(storage, rotates=False)  # all namespaces together are large, but `default` is small

    # Changes by other programs --------------------------------------------------------------------------------

    async def verify(self) -> None:
        """Check now that the files are still those that this process wrote; rewrite them if they are not."""
        if self.storage is not None:
            self._verify(self.storage)
            await self.sync.rest()
            await self.sync.rest()

    def _verify_later(self) -> None:
        if self._verify_timer is not None:
            self._verify_timer.cancel()
        if self.storage is not None:
            self._verify_timer = self.loop.call_later(self._verify_seconds, self._verify, self.storage)

    def _verify(self, storage: Storage) -> None:
        if self.storage is storage:
            self.do(storage.verify, partial(self._verified, storage))

    def _verified(self, storage: Storage, error: BaseException | None) -> None:
        if self.storage is not storage:
            return  # `close` verifies the files itself
        if error is not None:
            self.fault.note(error)
        elif storage.failed and self.fault.error is None:
            self.do(partial(storage.rewrite_all, *self.spaces.snapshots(storage.log)), self._written_again)
        self._verify_later()

    def _written_again(self, error: BaseException | None) -> None:
        if error is not None:
            self.fault.note(error)
        else:
            log.info("the files of the store are complete again")

    # Failures -------------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """See `Space.recover`."""
        storage = self.storage
        if storage is None or self.fault.error is None or self.fault.is_recovering:
            return
        self.fault.is_recovering = True
        failed = storage.failed
        try:
            if failed:
                await self._call(partial(storage.rewrite_all, *self.spaces.snapshots(storage.log)))
            elif storage.has_old_journal:
                # The checkpoint frees space for the reserve.
                self.start_checkpoint(storage)
                await self.rest()
            if storage.reserve.is_spent or not failed:
                await self._call(storage.reserve.make)
        except Exception as error:  # noqa: BLE001  `recover` must not raise; `note` logs the exception
            self.fault.note(error)
        else:
            self.fault.clear()
        finally:
            self.fault.is_recovering = False

    async def _call(self, job: Callable[[], None]) -> None:
        self._group = Group()
        await self.sync.call(job)

    def _reserve_ensured(self, error: BaseException | None) -> None:
        if error is None:
            return
        log.warning("the reserve for a full disk could not be made", reason=str(error))
        if isinstance(error, WriteError) and error.full:
            self.fault.note_full()

    def _rewritten(self, error: BaseException | None) -> None:
        # The next commit reports the failure, or clears the fault if it is stored.
        if error is not None:
            log.warning("the files could not be rewritten", reason=str(error))

    def refuse_closed(self) -> None:
        """Raise `unavailable` unless the volume is open."""
        if self.storage is None:
            raise unavailable("the store is closed")
