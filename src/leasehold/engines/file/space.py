"""The spaces of the file engine: all records of a namespace in memory, and its commits in the files of the volume."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from leasehold.completions import ends_the_process, report
from leasehold.engines.base import CommitDone, Decide
from leasehold.engines.file import policy
from leasehold.engines.file.appends import Append, NamedAppend
from leasehold.engines.file.namespaces import Head, head_with
from leasehold.engines.file.storage import Storage
from leasehold.engines.memory.space import DeletableSpace, InMemorySpace
from leasehold.engines.memory.state import State
from leasehold.engines.state import StoredState, empty_state
from leasehold.errors import ServiceError, no_such_namespace, outcome_unknown, unavailable
from leasehold.model import AnyKind, Change, Quota, Touched, is_removal

if TYPE_CHECKING:
    from leasehold.engines.file.volume import Volume


class FileSpace(InMemorySpace, ABC):
    """The base of both: what they have from the volume."""

    def __init__(self, volume: "Volume", state: StoredState, created_at: int) -> None:
        super().__init__(volume.clock, state)
        self.volume = volume
        self.created_at = created_at

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None: ...

    @property
    def fault(self) -> ServiceError | None:
        return self.volume.fault.error

    def gauges(self) -> Mapping[str, float]:
        return {**super().gauges(), "journal_bytes": self.volume.journal_bytes}

    async def recover(self) -> None:
        await self.volume.recover()

    @property
    def text_bytes(self) -> int:
        """The approximate size of its text in a snapshot."""
        return self._state.text_bytes

    def current(self) -> State:
        """The state with all stored changes. Raises if they cannot be published."""
        return self._current()

    def _finish_commit(
        self,
        storage: Storage,
        append: NamedAppend | None,
        changes: Sequence[Change],
        done: CommitDone,
        error: BaseException | None,
    ) -> None:
        volume = self.volume
        if error is None:
            self._unpublished = changes  # they are on disk, so they must be published before the next batch
            if append is not None:
                volume.spaces.sequence = append.sequence
        try:
            volume.commits += 1
            volume.last_commit_at = volume.loop.time()
            if error is None:
                self._conclude(changes, done)
            else:
                done(volume.fault.note(error))
        except BaseException as failure:  # `done` must be called, because all later changes wait for it
            report("a commit ended in an unexpected way", failure)
            done(outcome_unknown())
            if ends_the_process(failure):
                raise
        if error is None:
            volume.after_stored_commit(storage)


class DefaultSpace(FileSpace):
    """The space of `default`, whose snapshot is `data.json`. Its `open` and `close` are those of the volume."""

    def __init__(self, volume: "Volume") -> None:
        """It has no records until the volume is open."""
        super().__init__(volume, empty_state(), 0)

    def serve(self, state: StoredState, created_at: int) -> None:
        """The volume is open: serve these records."""
        self._clock = self.volume.clock
        self._use(State(state))
        self.incarnation = state.incarnation
        self.created_at = created_at

    async def open(self) -> None:
        await self.volume.open()

    async def close(self) -> None:
        await self.volume.close()

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:  # noqa: ARG002
        volume = self.volume
        storage = volume.storage
        if storage is None:
            done(unavailable("the store is closed"))
            return
        changes = self._decide(decide)
        if not changes:
            done(None)
            return
        if storage.failed:
            volume.rewrite(storage)
        finish = partial(self._finish_commit, storage, None, changes, done)
        if self._goes_into_data(storage, changes):
            snapshot = self._current().snapshot_after(changes, changes[-1].revision)
            frees_space = all(map(is_removal, changes))
            volume.do(partial(storage.write_snapshot, snapshot, frees_space=frees_space), finish)
        else:
            volume.append(storage, Append(self._state.revision + 1, changes), finish)

    def _goes_into_data(self, storage: Storage, changes: Sequence[Change]) -> bool:
        """Whether a commit that begins now is written to `data.json`, because it is isolated and it stays small."""
        operations = changes[-1].revision - self._state.revision  # each has a revision, also one with several changes
        if not self.volume.may_replace_data(storage, operations):
            return False
        before = self._state.text_bytes
        after = before + sum(self._state.text_bytes_after(change) - before for change in changes)
        return policy.is_small(before) and policy.is_small(after)


class NamedSpace(DeletableSpace, FileSpace):
    """The space of another namespace. It exists as long as the namespace, whether it is used or not."""

    def __init__(self, volume: "Volume", name: str, head: Head, state: StoredState) -> None:
        super().__init__(volume, state, head.created_at)
        self.name = name
        self.quota = head.quota
        self._is_committing = False
        self._held: Callable[[], None] | None = None
        """A commit that waits while the namespace is being deleted."""
        self.is_being_deleted = False
        self._at_rest: Callable[[], None] | None = None
        """Called when no commit is under way."""

    @property
    def head(self) -> Head:
        return self.head_with(self.quota)

    def head_with(self, quota: Quota) -> Head:
        """The head, if the namespace had this quota."""
        return head_with(quota, self.revision, self.incarnation, self.created_at)

    async def open(self) -> None:
        self.volume.refuse_closed()

    async def close(self) -> None:
        """Nothing belongs to it alone."""

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:
        volume = self.volume
        storage = volume.storage
        if self.is_deleted:
            done(no_such_namespace())
            return
        if storage is None:
            done(unavailable("the store is closed"))
            return
        if self.is_being_deleted:
            self._held = partial(self._commit_held, touched, decide, done)
            return
        changes = self._decide(decide)
        if not changes:
            done(None)
            return
        if storage.failed:
            volume.rewrite(storage)
        append = NamedAppend(storage.log, self.name, changes)
        finish = partial(self._finish_commit, storage, append, changes, partial(self._ended, done))
        volume.append(storage, append, finish)
        self._is_committing = True

    def _commit_held(self, touched: Touched, decide: Decide, done: CommitDone) -> None:
        try:
            self.commit(touched, decide, done)
        except BaseException as failure:  # as `Space.commit` says, nothing was stored
            report("a commit could not begin", failure)
            done(unavailable("the change could not be stored"))
            if ends_the_process(failure):
                raise

    def _ended(self, done: CommitDone, error: ServiceError | None) -> None:
        """A commit has ended. This is called again if it raises."""
        self._is_committing = False
        done(error)
        if self._at_rest is not None:
            self._at_rest()

    def _publish(self, changes: Sequence[Change]) -> Mapping[AnyKind, Sequence[Change]]:
        before = self._state.text_bytes
        of_kinds = super()._publish(changes)
        self.volume.spaces.note_text(self._state.text_bytes - before)
        return of_kinds

    # Deletion -------------------------------------------------------------------------------------------------

    def hold(self, at_rest: Callable[[], None]) -> None:
        """Begin no commit until `release`. Calls `at_rest` when none is under way, maybe before this returns."""
        self.is_being_deleted = True
        if self._is_committing:
            self._at_rest = at_rest
        else:
            at_rest()

    def release(self, *, is_deleted: bool) -> None:
        """The namespace was deleted, or its deletion has failed. The commit that has waited begins, or is refused."""
        self.is_being_deleted, self._at_rest = False, None
        if is_deleted:
            self.delete()
        held, self._held = self._held, None
        if held is not None:
            held()
