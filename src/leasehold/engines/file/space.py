"""A space of the file engine: all records in memory, `data.json` and a journal on disk, for one process.

`policy` says what is written when, this module orders it, and `storage` writes it, on two threads. All state here
belongs to the event loop's thread. A commit is decided and encoded here, made durable on the sync thread, and published
here before it is answered. A large one is encoded on the sync thread. This thread runs its jobs in order. So a commit
waits while the journal is rotated, and while the files are rewritten after a failure.
"""

import asyncio
import math
import operator
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from leasehold.completions import ends_the_process, report
from leasehold.engines.base import Clock, CommitDone, Decide, MakeIncarnation, SteadyClock, new_incarnation
from leasehold.engines.file import policy
from leasehold.engines.file.disk import Disk, OsDisk, WriteError
from leasehold.engines.file.ending import end_files
from leasehold.engines.file.fields import TIME, names_of
from leasehold.engines.file.job_thread import JobThread
from leasehold.engines.file.journal import LargeContentError, encode_record
from leasehold.engines.file.recovery import real_path
from leasehold.engines.file.storage import Storage
from leasehold.engines.memory.space import InMemorySpace
from leasehold.engines.memory.state import State
from leasehold.engines.state import StoredState
from leasehold.errors import ServiceError, outcome_unknown, unavailable
from leasehold.model import Change, Touched, is_removal
from leasehold.progress import reported

log = structlog.get_logger(__name__)

CHECKPOINT_RETRY_SECONDS: Final = 10.0
VERIFY_SECONDS: Final = 1.0
"""Between two checks that the files are still those that this process wrote."""


class FileSpace(InMemorySpace):
    """The space in `path` (`data.json`). The other arguments are for tests."""

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
        super().__init__(clock)
        self._own_clock = clock is None
        self._path = path
        self._disk: Disk = OsDisk() if disk is None else disk
        self._idle_seconds = idle_seconds
        self._verify_seconds = verify_seconds
        self._make_incarnation = make_incarnation
        self._storage: Storage | None = None
        """None unless the space is open."""
        self._fault: ServiceError | None = None
        self._checkpointing = False
        self._checkpoint_is_small = False
        """The checkpoint under way writes a small `data.json`, so a commit may wait for it."""
        self._retry_checkpoint_at = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._verify_timer: asyncio.TimerHandle | None = None
        self._last_commit_at = -math.inf
        """When the last commit ended."""
        self._complete_at = 0.0
        """While the idle timer runs: `data.json` has all changes up to this time, or will have them soon."""
        self._commits = 0
        """The number of finished commits. The idle timer compares it to find out whether the lane was idle."""

    @property
    def fault(self) -> ServiceError | None:
        return self._fault

    def gauges(self) -> Mapping[str, float]:
        journal_bytes = 0 if self._storage is None else self._storage.journal_bytes
        return {**super().gauges(), "journal_bytes": journal_bytes}

    # Start and end --------------------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._storage is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._sync = JobThread("leasehold-sync", self._loop)
        self._checkpointer = JobThread("leasehold-checkpoint", self._loop)
        storage = Storage(real_path(self._path), self._disk)
        self._fault = None
        self._retry_checkpoint_at = 0.0
        try:
            with reported("the store is being opened", storage.progress.figures):
                await self._sync.call(partial(self._load, storage))
        except BaseException:
            await self._release(storage)
            raise
        self._storage = storage
        if not storage.needs_no_checkpoint:
            self._start_checkpoint(storage)
        # The start does not wait for it, but the sync thread makes it before the first commit.
        self._sync.do(storage.reserve.ensure, self._reserve_ensured)
        self._verify_later()

    def _load(self, storage: Storage) -> None:
        """On the sync thread: read the files. Write a checkpoint if the store is small, or its incarnation is new."""
        state = storage.open(self._clock(), self._make_incarnation)
        storage.progress.begin("indexing the entries")
        self._use(State(state))
        self.incarnation = state.incarnation
        if self._own_clock:
            self._clock = SteadyClock(_latest_time(state))
        if policy.is_small(self._state.text_bytes) or storage.snapshot_revision < 0:
            try:
                storage.checkpoint_at_start(self._current().snapshot())
            except WriteError as error:
                # Everything was read, so reads can be served. The next commit, or `recover`, rewrites the files.
                self._note_failure(error)

    async def close(self) -> None:
        storage = self._storage
        if storage is None:
            return
        self._current()  # raises if stored changes are missing in memory: then the journal must be kept
        self._storage = None
        for timer in (self._idle_timer, self._verify_timer):
            if timer is not None:
                timer.cancel()
        self._idle_timer = self._verify_timer = None
        try:
            with reported("the store is being closed", storage.progress.figures):
                await end_files(storage, self._current, self._sync, self._checkpointer)
        finally:
            await self._release(storage)

    async def _release(self, storage: Storage) -> None:
        await self._sync.call(storage.close)
        self._sync.stop()
        self._checkpointer.stop()

    # Commits --------------------------------------------------------------------------------------------------

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:  # noqa: ARG002
        storage = self._storage
        if storage is None:
            done(unavailable("the store is closed"))
            return
        changes = self._decide(decide)
        if not changes:
            done(None)
            return
        if storage.failed:
            self._sync.do(partial(storage.rewrite_all, self._current().snapshot()), self._rewritten)
        frees_space = all(map(is_removal, changes))
        finish = partial(self._finish_commit, storage, changes, done)
        if self._goes_into_data(storage, changes):
            snapshot = self._current().snapshot_after(changes, changes[-1].revision)
            self._sync.do(partial(storage.write_snapshot, snapshot, frees_space=frees_space), finish)
        else:
            first, last = self._state.revision + 1, changes[-1].revision
            try:
                append = partial(storage.append, first, last, encode_record(first, changes))
            except LargeContentError:
                append = partial(storage.append_large, first, last, changes)
            self._sync.do(partial(append, frees_space=frees_space), finish)

    def _finish_commit(
        self, storage: Storage, changes: Sequence[Change], done: CommitDone, error: BaseException | None
    ) -> None:
        self._commits += 1
        self._last_commit_at = self._loop.time()
        try:
            if error is None:
                self._unpublished = changes  # they are on disk, so they must be published before the next batch
                self._conclude(changes, done)
            else:
                done(self._note_failure(error))
        except BaseException as failure:  # `done` must be called, because all later changes wait for it
            report("a commit ended in an unexpected way", failure)
            done(outcome_unknown())
            if ends_the_process(failure):
                raise
        if error is None:
            self._after_stored_commit(storage)

    def _after_stored_commit(self, storage: Storage) -> None:
        """Update the fault and start checkpoints after a stored batch. An exception is logged by the event loop."""
        if storage.reserve.is_spent:
            # The batch was stored in the space of the reserve. `recover` clears the fault once there is a reserve.
            self._fault = self._fault or _disk_full()
        elif self._fault is not None:
            self._clear_fault()
        if policy.is_journal_too_large(storage.journal_bytes, self._state.text_bytes):
            self._start_checkpoint(storage)
        if self._idle_timer is None and not storage.needs_no_checkpoint:
            self._complete_at = self._last_commit_at
            self._watch_for_idleness(self._idle_seconds)

    def _goes_into_data(self, storage: Storage, changes: Sequence[Change]) -> bool:
        """Whether a commit that begins now is written to `data.json`, because it is isolated and the store stays small.

        If a checkpoint has failed, the commit need not be isolated: on a full disk, a smaller `data.json` frees space.
        """
        has_failed_checkpoint = storage.has_old_journal and not self._checkpointing
        operations = changes[-1].revision - self._state.revision  # each has a revision, also one with several changes
        if not (has_failed_checkpoint or policy.is_isolated(self._loop.time(), self._last_commit_at, operations)):
            return False
        before = self._state.text_bytes
        after = before + sum(self._state.text_bytes_after(change) - before for change in changes)
        waits_long = self._checkpointing and not self._checkpoint_is_small
        return policy.is_small(before) and policy.is_small(after) and not waits_long

    # Checkpoints ----------------------------------------------------------------------------------------------

    async def checkpoint(self) -> None:
        """Write everything to `data.json` now. Returns when a checkpoint that began after this call has ended."""
        while self._storage is not None and self._checkpointing:
            await self._rest()
        if self._storage is not None:
            self._retry_checkpoint_at = 0.0
            self._start_checkpoint(self._storage)
            await self._rest()

    async def _rest(self) -> None:
        await self._sync.rest()
        await self._checkpointer.rest()

    def _start_checkpoint(self, storage: Storage, *, rotates: bool = True) -> None:
        """Write `data.json` and remove the journal. Without `rotates`, the journal continues."""
        if self._checkpointing or storage.failed or self._loop.time() < self._retry_checkpoint_at:
            return
        self._checkpoint_is_small = policy.is_small(self._state.text_bytes)
        if rotates:
            self._sync.do(storage.rotate, partial(self._write_checkpoint, storage))
            self._checkpointing = True
        else:
            self._write_checkpoint(storage, None)

    def _write_checkpoint(self, storage: Storage, error: BaseException | None) -> None:
        """All changes in an old journal are published, so this snapshot covers it."""
        self._checkpointing = False  # if this raises, another checkpoint begins after the next commit
        if error is not None:
            self._note_failure(error)
        elif self._storage is not None:  # else `close` does it
            snapshot = self._current().snapshot()
            self._complete_at = self._loop.time()
            self._checkpointer.do(partial(storage.checkpoint, snapshot), self._finish_checkpoint)
            self._checkpointing = True

    def _finish_checkpoint(self, error: BaseException | None) -> None:
        self._checkpointing = False
        storage = self._storage
        if error is not None and storage is not None:
            # Nothing is lost: both journals are kept, and commits continue.
            self._retry_checkpoint_at = self._loop.time() + CHECKPOINT_RETRY_SECONDS
            log.warning("a checkpoint failed and will be repeated", reason=str(error))
            if self._idle_timer is None:
                self._watch_for_idleness(CHECKPOINT_RETRY_SECONDS)
        if storage is not None and storage.reserve.is_spent:
            self._fault = self._fault or _disk_full()

    def _watch_for_idleness(self, seconds: float) -> None:
        if self._storage is not None:
            self._idle_timer = self._loop.call_later(seconds, self._after_idle_time, self._commits)

    def _after_idle_time(self, commits_before: int) -> None:
        self._idle_timer = None
        storage = self._storage
        if storage is None or storage.needs_no_checkpoint:
            return
        now, text_bytes = self._loop.time(), self._state.text_bytes
        if self._checkpointing or self._commits != commits_before:
            if policy.is_stale(now - self._complete_at, text_bytes):
                self._start_checkpoint(storage, rotates=False)
            left = self._last_commit_at + self._idle_seconds - now
            self._watch_for_idleness(left if left > 0 else self._idle_seconds)
        elif policy.is_due_when_idle(text_bytes, storage.journal_bytes, has_old_journal=storage.has_old_journal):
            self._start_checkpoint(storage)
            if not self._checkpointing:
                self._watch_for_idleness(CHECKPOINT_RETRY_SECONDS)  # the last one failed; it is too early to repeat

    # Changes by other programs --------------------------------------------------------------------------------

    async def verify(self) -> None:
        """Check now that the files are still those that this process wrote; rewrite them if they are not."""
        if self._storage is not None:
            self._verify(self._storage)
            await self._sync.rest()
            await self._sync.rest()

    def _verify_later(self) -> None:
        if self._verify_timer is not None:
            self._verify_timer.cancel()
        if self._storage is not None:
            self._verify_timer = self._loop.call_later(self._verify_seconds, self._verify, self._storage)

    def _verify(self, storage: Storage) -> None:
        if self._storage is storage:
            self._sync.do(storage.verify, partial(self._verified, storage))

    def _verified(self, storage: Storage, error: BaseException | None) -> None:
        if self._storage is not storage:
            return  # `close` verifies the files itself
        if error is not None:
            self._note_failure(error)
        elif storage.failed and self._fault is None:
            self._sync.do(partial(storage.rewrite_all, self._current().snapshot()), self._written_again)
        self._verify_later()

    def _written_again(self, error: BaseException | None) -> None:
        if error is not None:
            self._note_failure(error)
        else:
            log.info("the files of the store are complete again")

    # Failures -------------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        storage = self._storage
        if storage is None or self._fault is None:
            return
        failed = storage.failed
        try:
            if failed:
                await self._sync.call(partial(storage.rewrite_all, self._current().snapshot()))
            elif storage.has_old_journal:
                # The checkpoint frees space for the reserve.
                self._start_checkpoint(storage)
                await self._rest()
            if storage.reserve.is_spent or not failed:
                await self._sync.call(storage.reserve.make)
        except Exception as error:  # noqa: BLE001  `recover` must not raise; `_note_failure` logs the exception
            self._note_failure(error)
        else:
            self._clear_fault()

    def _reserve_ensured(self, error: BaseException | None) -> None:
        if error is None:
            return
        log.warning("the reserve for a full disk could not be made", reason=str(error))
        if isinstance(error, WriteError) and error.full:
            self._fault = self._fault or _disk_full()

    def _rewritten(self, error: BaseException | None) -> None:
        # The next commit reports the failure, or clears the fault if it is stored.
        if error is not None:
            log.warning("the files could not be rewritten", reason=str(error))

    def _note_failure(self, error: BaseException) -> ServiceError:
        """Set the fault for `error`. Returns the error for a commit that failed because of it."""
        full = isinstance(error, WriteError) and error.full
        unchanged = isinstance(error, WriteError) and error.nothing_changed
        was_sound = self._fault is None
        self._fault = _disk_full() if full else unavailable("changes cannot be made durable now")
        if not isinstance(error, WriteError):
            log.error("a write failed in an unexpected way", exc_info=error)
        if was_sound:
            log.error("writes cannot be made durable", reason=str(error), disk_full=full)
        if full and unchanged:
            return ServiceError("storage_full", "the disk is full; the change was not stored")
        if unchanged:
            return unavailable("the change could not be stored")
        return outcome_unknown()

    def _clear_fault(self) -> None:
        self._fault = None
        log.info("writes are durable again")


def _disk_full() -> ServiceError:
    return ServiceError("storage_full", "the disk is full")


def _latest_time(state: StoredState) -> int:
    """The latest time in the records, except expiries. The clock must not begin before it."""
    return max(
        (
            time
            for kind, contents in state.contents.items()
            for field in names_of(kind.record, TIME)
            if field != "expires_at"
            for time in map(operator.attrgetter(field), contents.by_name.values())
        ),
        default=0,
    )
