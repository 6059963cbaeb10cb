"""`leasehold` with a planted bug that a harness must detect, or on a slow disk that it must tolerate.

LEASEHOLD_TEST_BUG names one of `BUGS`. LEASEHOLD_TEST_STALLS is `EVERY:SECONDS`: one of EVERY syncs of a file takes so
long. The code of the service itself has neither.
"""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec.structs import replace

from leasehold.cli import app as cli
from leasehold.engines.base import CommitDone, Decide
from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.engine import FileEngine
from leasehold.engines.file.snapshot import Snapshot
from leasehold.engines.file.storage import Storage
from leasehold.engines.postgres import statements
from leasehold.engines.postgres.engine import PostgresEngine, _Written
from leasehold.engines.postgres.links import Connection
from leasehold.errors import ServiceError
from leasehold.model import (
    Acquire,
    Change,
    Delete,
    Entry,
    Leased,
    LockOperation,
    Operation,
    Outcome,
    Put,
    Renew,
    Touched,
    View,
    is_expired,
)
from leasehold.rules.batch import _Batch, _check, _lease_lost
from leasehold.store.lock_queues import LockQueues
from leasehold.store.store import Store

Done = Callable[[Outcome | ServiceError], None]

SLOW_SECONDS: Final = 0.01

_apply_to_lock = _Batch._apply_to_lock
_acquire = _Batch._acquire


def restart_tokens() -> None:
    """Tokens are counted in the process, so they begin again at 1 after a restart."""
    tokens = itertools.count(1)

    def acquire(self: _Batch, operation: Acquire) -> Leased:
        return self._keep(replace(_acquire(self, operation).lease, token=next(tokens)))

    _Batch._acquire = acquire  # type: ignore[method-assign]


def renew_expired() -> None:
    """An expired lease is renewed if no other caller has taken the lock since."""

    def apply(self: _Batch, operation: LockOperation) -> Outcome:
        if isinstance(operation, Renew):
            lease = self._stored_lease(operation.lock)
            if lease is not None and lease.lease_id == operation.lease_id:
                return self._renew(lease, operation.ttl)
        return _apply_to_lock(self, operation)

    _Batch._apply_to_lock = apply  # type: ignore[method-assign]


def check_fences_on_arrival() -> None:
    """A lease is checked when the write arrives and not again when it is committed."""
    submit = Store.submit

    def checked(self: Store, operation: Operation, done: Done) -> None:
        if isinstance(operation, Put) and operation.lease_id is not None:
            engine = self.engine
            assert isinstance(engine, FileEngine)
            lease = engine._state.lease_by_id(operation.lease_id)
            if lease is None or is_expired(lease, engine._clock()):
                done(_lease_lost(status=412))
                return
            operation = replace(operation, lease_id=None)
        submit(self, operation, done)

    Store.submit = checked  # type: ignore[method-assign]


def trust_waking() -> None:
    """A woken waiter gets the lock without another check that it is free."""
    woken: set[str] = set()
    wake = LockQueues.wake

    def noting(self: LockQueues, locks: Sequence[str] | None) -> None:
        for lock in list(self._queues) if locks is None else locks:
            queue = self._queues.get(lock)
            if queue is not None and queue.waiters:
                woken.add(queue.waiters[0].operation.lease_id)
        wake(self, locks)

    def apply(self: _Batch, operation: LockOperation) -> Outcome:
        if isinstance(operation, Acquire) and operation.lease_id in woken:
            return self._acquire(operation)
        return _apply_to_lock(self, operation)

    LockQueues.wake = noting  # type: ignore[method-assign]
    _Batch._apply_to_lock = apply  # type: ignore[method-assign]


def retry_unknown_commits() -> None:
    """A COMMIT whose answer was lost counts as not stored, and the batch is repeated."""

    async def not_stored(self: PostgresEngine, connection: Connection, written: _Written) -> bool:
        return False

    PostgresEngine._is_stored = not_stored  # type: ignore[method-assign]


def trust_the_primary() -> None:
    """A commit on the primary counts as replicated: a COMMIT whose wait was interrupted, or one found later."""
    is_stored, execute = PostgresEngine._is_stored, PostgresEngine._execute
    found: list[bool] = []

    async def remember(self: PostgresEngine, connection: Connection, written: _Written) -> bool:
        found[:] = [await is_stored(self, connection, written)]
        return found[0]

    async def end(self: PostgresEngine, connection: Connection) -> None:
        await execute(self, connection, statements.ROLLBACK if True in found else statements.COMMIT)
        found.clear()

    PostgresEngine._is_stored = remember  # type: ignore[method-assign]
    PostgresEngine._finish = end  # type: ignore[method-assign]


def check_preconditions_on_arrival() -> None:
    """If-Match and If-None-Match are checked when the write arrives and not again when it is committed."""
    submit = Store.submit

    def checked(self: Store, operation: Operation, done: Done) -> None:
        if not isinstance(operation, Put | Delete) or operation.condition is None:
            submit(self, operation, done)
            return
        condition = operation.condition
        unconditional = replace(operation, condition=None)

        def check(entry: Entry | ServiceError | None) -> None:
            assert not isinstance(entry, ServiceError)
            try:
                _check(condition, entry, self.engine.incarnation)
            except ServiceError as refusal:
                done(refusal)
            else:
                submit(self, unconditional, done)

        self.engine.read(operation.key, check)

    Store.submit = checked  # type: ignore[method-assign]


def slow_disk() -> None:
    """Not a bug: a pause before each batch is written gives time for a kill."""
    append, write_snapshot = Storage.append, Storage.write_snapshot

    def slow_append(self: Storage, first: int, last: int, record: bytes, *, frees_space: bool) -> None:
        time.sleep(SLOW_SECONDS)
        append(self, first, last, record, frees_space=frees_space)

    def slow_snapshot(self: Storage, snapshot: Snapshot, *, frees_space: bool) -> None:
        time.sleep(SLOW_SECONDS)
        write_snapshot(self, snapshot, frees_space=frees_space)

    Storage.append = slow_append  # type: ignore[assignment,method-assign]
    Storage.write_snapshot = slow_snapshot  # type: ignore[method-assign]


def publish_before_durable() -> None:
    """Readers see a batch as soon as it is decided."""
    slow_disk()
    _publish_when_decided(is_answered=False)


def answer_before_durable() -> None:
    """Writers get their answers as soon as the batch is decided, and readers see it."""
    slow_disk()
    _publish_when_decided(is_answered=True)


def _publish_when_decided(*, is_answered: bool) -> None:
    commit_durably, publish = FileEngine.commit, FileEngine._publish

    def commit(self: FileEngine, touched: Touched, decide: Decide, done: CommitDone) -> None:
        changes: list[Change] = []

        def remember(view: View, revision: int, now: int) -> Sequence[Change]:
            changes.extend(decide(view, revision, now))
            return changes

        commit_durably(self, touched, remember, (lambda _: None) if is_answered else done)
        if changes:
            publish(self, changes)
        if is_answered:
            done(None)

    FileEngine.commit = commit  # type: ignore[method-assign]
    FileEngine._publish = lambda _self, _changes: None  # type: ignore[assignment,method-assign]


BUGS: Final = {
    "restart tokens": restart_tokens,
    "renew expired": renew_expired,
    "check fences on arrival": check_fences_on_arrival,
    "trust waking": trust_waking,
    "retry unknown commits": retry_unknown_commits,
    "trust the primary": trust_the_primary,
    "check preconditions on arrival": check_preconditions_on_arrival,
    "slow disk": slow_disk,
    "publish before durable": publish_before_durable,
    "answer before durable": answer_before_durable,
}


def stall(every: int, seconds: float) -> None:
    syncs = itertools.count(1)

    def stalling(sync: Callable[[OsDisk, int], None]) -> Callable[[OsDisk, int], None]:
        def stalled(self: OsDisk, file: int) -> None:
            if next(syncs) % every == 0:
                time.sleep(seconds)
            sync(self, file)

        return stalled

    OsDisk.fsync = stalling(OsDisk.fsync)  # type: ignore[assignment,method-assign]
    OsDisk.fdatasync = stalling(OsDisk.fdatasync)  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    if bug := os.environ.pop("LEASEHOLD_TEST_BUG", ""):
        BUGS[bug]()
    if stalls := os.environ.pop("LEASEHOLD_TEST_STALLS", ""):
        stall(int(stalls.partition(":")[0]), float(stalls.partition(":")[2]))
    cli.main()
