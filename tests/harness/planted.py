"""`leasehold` with a planted bug that a harness must detect, or on a slow disk that it must tolerate.

LEASEHOLD_TEST_BUG names one of `BUGS`. LEASEHOLD_TEST_STALLS is `EVERY:SECONDS`: one of EVERY syncs of a file takes so
long. LEASEHOLD_TEST_HOLD is the path of a file: as long as it exists, each sync of a file waits. The code of the
service itself has none of these.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from leasehold.cli import app as cli
from leasehold.engines.base import CommitDone, Decide, by_kind
from leasehold.engines.file.appends import AnyAppend, Group
from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.space import DefaultSpace, FileSpace
from leasehold.engines.file.storage import Storage
from leasehold.engines.memory.table import Table
from leasehold.engines.postgres import head_statements
from leasehold.engines.postgres.change_writer import Written
from leasehold.engines.postgres.committer import Batch, Committer
from leasehold.engines.postgres.links import SILENCE_SECONDS, Connection, time_limit
from leasehold.engines.postgres.pipeline import Pipeline
from leasehold.engines.postgres.primary import Primaries
from leasehold.engines.state import KindSnapshot, Snapshot
from leasehold.errors import ServiceError
from leasehold.http import event_formats
from leasehold.http.event_formats import EventFormat
from leasehold.model import (
    ENTRY,
    LEASE,
    Acquire,
    Change,
    Committed,
    Delete,
    Entry,
    Held,
    Lease,
    Leased,
    LeaseEnd,
    Operation,
    Outcome,
    Put,
    Record,
    Renew,
    Touched,
    Transaction,
    View,
    is_expired,
)
from leasehold.rules import leases, transactions
from leasehold.rules.conditions import check
from leasehold.rules.fences import lease_lost
from leasehold.rules.overlay import Overlay, Staging
from leasehold.store import next_requests
from leasehold.store.lane import Lane
from leasehold.store.lock_queues import LockQueues
from leasehold.store.watchers import Watcher
from leasehold.store.watching import Watching

Done = Callable[[Outcome | ServiceError], None]

SLOW_SECONDS: Final = 0.01

_acquire = leases.acquire


def restart_tokens() -> None:
    """Tokens are counted in the process, so they begin again at 1 after a restart."""
    tokens = itertools.count(1)

    def acquire(overlay: Overlay, operation: Acquire) -> Leased | Held:
        outcome = _acquire(overlay, operation)
        if isinstance(outcome, Leased):
            outcome = replace(outcome, lease=replace(outcome.lease, token=next(tokens)))
            overlay.put(LEASE, operation.lock, outcome.lease)
        return outcome

    leases.acquire = acquire


def renew_expired() -> None:
    """An expired lease is renewed if no other caller has taken the lock since."""
    renew = leases.renew

    def renew_any(overlay: Overlay, operation: Renew) -> Leased:
        lease = overlay.stored(LEASE, operation.lock)
        if lease is not None and lease.lease_id == operation.lease_id and is_expired(lease, overlay.now):
            overlay.put(LEASE, operation.lock, replace(lease, expires_at=overlay.now + 1))
        return renew(overlay, operation)

    leases.renew = renew_any


def check_fences_on_arrival() -> None:
    """A lease is checked when the write arrives and not again when it is committed."""
    submit = Lane.submit

    def checked(self: Lane, operation: Operation, done: Done) -> None:
        if isinstance(operation, Put) and operation.lease_id is not None:
            space = self._space
            assert isinstance(space, FileSpace)
            lease = space._state.found(LEASE).get(operation.lease_id)
            if lease is None or is_expired(lease, space._clock()):
                done(lease_lost(status=412))
                return
            operation = replace(operation, lease_id=None)
        submit(self, operation, done)

    Lane.submit = checked  # type: ignore[method-assign]


def trust_waking() -> None:
    """A woken waiter gets the lock without another check that it is free."""
    woken: set[str] = set()
    wake = LockQueues.wake

    def noting(self: LockQueues, locks: Sequence[str] | None) -> None:
        for lock in list(self._queues) if locks is None else locks:
            queue = self._queues.get(lock)
            if queue is not None and queue.waiters:
                woken.add(queue.waiters[0].acquire.lease_id)
        wake(self, locks)

    def acquire(overlay: Overlay, operation: Acquire) -> Leased | Held:
        if operation.lease_id in woken:
            overlay.put(LEASE, operation.lock, LeaseEnd(operation.lock, overlay.next_revision()))
        return _acquire(overlay, operation)

    LockQueues.wake = noting  # type: ignore[method-assign]
    leases.acquire = acquire


def retry_unknown_commits() -> None:
    """A COMMIT whose answer was lost counts as not stored, and the batch is repeated."""

    async def not_stored(self: Committer, connection: Connection, written: Written) -> bool:
        return False

    Committer._is_stored = not_stored  # type: ignore[method-assign]


def turn_without_lock() -> None:
    """A server that takes its turn among others does not lock the head, so two servers commit at once."""

    async def begin(self: Committer, pipeline: Pipeline) -> None:
        with time_limit(pipeline.connection, SILENCE_SECONDS):
            await pipeline.execute(head_statements.BEGIN)

    Committer._lock = begin  # type: ignore[method-assign]


def decide_once() -> None:
    """A batch that is repeated, because its turn was lost, is written as it was decided in the lost turn."""
    attempt = Committer._attempt
    last: list[tuple[Batch, Sequence[Change]]] = []

    async def repeat(
        self: Committer, pipeline: Pipeline, batch: Batch, *, is_locked: bool
    ) -> Written | ServiceError | None:
        def decide(view: View, revision: int, now: int) -> Sequence[Change]:
            if not last or last[0][0] is not batch:
                last[:] = [(batch, batch.decide(view, revision, now))]
            return last[0][1]

        return await attempt(self, pipeline, Batch(batch.names, decide), is_locked=is_locked)

    Committer._attempt = repeat  # type: ignore[method-assign]


def trust_the_primary() -> None:
    """A commit on the primary counts as replicated: a COMMIT whose wait was interrupted, or one found later."""
    is_stored = Committer._is_stored
    found: list[bool] = []

    async def remember(self: Committer, connection: Connection, written: Written) -> bool:
        found[:] = [await is_stored(self, connection, written)]
        return found[0]

    async def end(self: Committer, pipeline: Pipeline) -> None:
        with time_limit(pipeline.connection, SILENCE_SECONDS):
            await pipeline.execute(head_statements.ROLLBACK if True in found else head_statements.COMMIT)
        found.clear()

    Committer._is_stored = remember  # type: ignore[method-assign]
    Committer._finish = end  # type: ignore[method-assign]


def use_former_primaries() -> None:
    """Connections to a former primary stay in use after a failover, and new ones are made."""
    Primaries.add = lambda *_: None  # type: ignore[method-assign]
    Primaries.is_new = lambda *_: False  # type: ignore[method-assign]


def check_preconditions_on_arrival() -> None:
    """If-Match and If-None-Match are checked when the write arrives and not again when it is committed."""
    submit = Lane.submit

    def checked(self: Lane, operation: Operation, done: Done) -> None:
        if not isinstance(operation, Put | Delete) or operation.condition is None:
            submit(self, operation, done)
            return
        condition = operation.condition
        unconditional = replace(operation, condition=None)

        def look(entry: Entry | ServiceError | None) -> None:
            assert not isinstance(entry, ServiceError)
            try:
                check(condition, entry, self._space.incarnation)
            except ServiceError as refusal:
                done(refusal)
            else:
                submit(self, unconditional, done)

        self._space.read(ENTRY, operation.key, look)

    Lane.submit = checked  # type: ignore[method-assign]


def wait_for_few() -> None:
    """Not a bug: while other servers commit, a lane waits for the next requests of fewer clients than it would."""
    next_requests.LEAST_OPERATIONS = 2  # type: ignore[misc]


def slow_disk() -> None:
    """Not a bug: a pause before each batch is written gives time for a kill."""
    append_now, write_snapshot = Storage.append, Storage.write_snapshot

    def slow_append(self: Storage, group: Group, append: AnyAppend) -> None:
        time.sleep(SLOW_SECONDS)
        append_now(self, group, append)

    def slow_snapshot(self: Storage, snapshot: Snapshot, *, frees_space: bool) -> None:
        time.sleep(SLOW_SECONDS)
        write_snapshot(self, snapshot, frees_space=frees_space)

    Storage.append = slow_append  # type: ignore[method-assign]
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
    commit_durably, publish = DefaultSpace.commit, FileSpace._publish

    def commit(self: DefaultSpace, touched: Touched, decide: Decide, done: CommitDone) -> None:
        changes: list[Change] = []

        def remember(view: View, revision: int, now: int) -> Sequence[Change]:
            changes.extend(decide(view, revision, now))
            return changes

        commit_durably(self, touched, remember, (lambda _: None) if is_answered else done)
        if changes:
            publish(self, changes)
        if is_answered:
            done(None)

    DefaultSpace.commit = commit  # type: ignore[method-assign]
    FileSpace._publish = lambda _self, changes: by_kind(changes)  # type: ignore[assignment, method-assign]


def show_half_a_transaction() -> None:
    """The changes of a transaction become visible one after the other, and readers are answered in between."""
    conclude, publish = FileSpace._conclude, FileSpace._publish

    def conclude_in_steps(self: FileSpace, changes: Sequence[Change], done: CommitDone) -> None:
        revisions = [change.revision for change in changes]
        shared = [place for place in range(1, len(changes)) if revisions[place] == revisions[place - 1]]
        if not shared:
            conclude(self, changes, done)
            return
        publish(self, changes[: shared[0]])
        asyncio.get_running_loop().call_later(SLOW_SECONDS, conclude, self, changes[shared[0] :], done)

    FileSpace._conclude = conclude_in_steps  # type: ignore[assignment, method-assign]


def number_operations() -> None:
    """Each change of a transaction takes a revision of its own."""

    def do(overlay: Overlay, transaction: Transaction) -> Committed:
        results = tuple(transactions._apply(overlay, operation) for operation in transaction.operations)
        return Committed(overlay.revision, results)

    transactions._do = do


def check_transactions_on_arrival() -> None:
    """The checks of a transaction are done when it arrives and not again when it is committed."""
    submit = Lane.submit

    def checked(self: Lane, operation: Operation, done: Done) -> None:
        if isinstance(operation, Transaction):
            space = self._space
            assert isinstance(space, FileSpace)
            overlay = Overlay(space._state, space.revision, space._clock(), self._max_value_bytes)
            try:
                transactions._check(Staging(overlay), operation)
            except ServiceError as refusal:
                done(refusal)
                return
            operation = replace(operation, checks=())
        submit(self, operation, done)

    Lane.submit = checked  # type: ignore[method-assign]


def forget_removals_at_checkpoints() -> None:
    """A checkpoint leaves out the removals, and still says that all changes are known."""
    snapshot = Table.snapshot

    def without_removals(self: Table[Record], head: int) -> KindSnapshot[Record]:
        return replace(snapshot(self, head), removals={})

    Table.snapshot = without_removals  # type: ignore[method-assign,assignment]


def ids_inside_transactions() -> None:
    """Each event of a watch has an id, also those after which the revision goes on."""

    def changes_with_ids(self: EventFormat, changes: Sequence[Change]) -> bytes:
        return self._chunk(changes, [change.revision for change in changes])

    EventFormat.changes = changes_with_ids  # type: ignore[method-assign]


def skip_what_slow_readers_miss() -> None:
    """A watcher that has fallen behind continues at the head."""
    catch_up = Watching._catch_up

    async def from_the_head(self: Watching, watcher: Watcher) -> None:
        if watcher.joined_at:
            watcher.cursor = max(watcher.cursor, self._space.revision)
        await catch_up(self, watcher)

    Watching._catch_up = from_the_head  # type: ignore[method-assign]


def tell_the_lease_id() -> None:
    """A watcher is told the secret of each lease."""
    held = event_formats._held

    def with_secret(lease: Lease) -> bytes:
        return b'%b,"lease_id":"%b"}' % (held(lease)[:-1], lease.lease_id.encode())

    event_formats._held = with_secret


BUGS: Final = {
    "restart tokens": restart_tokens,
    "renew expired": renew_expired,
    "check fences on arrival": check_fences_on_arrival,
    "trust waking": trust_waking,
    "retry unknown commits": retry_unknown_commits,
    "trust the primary": trust_the_primary,
    "use former primaries": use_former_primaries,
    "check preconditions on arrival": check_preconditions_on_arrival,
    "decide once": decide_once,
    "wait for few": wait_for_few,
    "slow disk": slow_disk,
    "turn without lock": turn_without_lock,
    "publish before durable": publish_before_durable,
    "answer before durable": answer_before_durable,
    "show half a transaction": show_half_a_transaction,
    "number operations": number_operations,
    "check transactions on arrival": check_transactions_on_arrival,
    "forget removals at checkpoints": forget_removals_at_checkpoints,
    "ids inside transactions": ids_inside_transactions,
    "skip what slow readers miss": skip_what_slow_readers_miss,
    "tell the lease_id": tell_the_lease_id,
}


def stall(every: int, seconds: float) -> None:
    syncs = itertools.count(1)

    def stalling(sync: Callable[[OsDisk, int], None]) -> Callable[[OsDisk, int], None]:
        def stalled(self: OsDisk, file: int) -> None:
            if next(syncs) % every == 0:
                time.sleep(seconds)
            sync(self, file)

        return stalled

    _change_syncs(stalling)


def hold(path: str) -> None:
    def holding(sync: Callable[[OsDisk, int], None]) -> Callable[[OsDisk, int], None]:
        def held(self: OsDisk, file: int) -> None:
            while Path(path).exists():
                time.sleep(0.01)
            sync(self, file)

        return held

    _change_syncs(holding)


def _change_syncs(change: Callable[[Callable[[OsDisk, int], None]], Callable[[OsDisk, int], None]]) -> None:
    OsDisk.fsync = change(OsDisk.fsync)  # type: ignore[assignment,method-assign]
    OsDisk.fdatasync = change(OsDisk.fdatasync)  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    if bug := os.environ.pop("LEASEHOLD_TEST_BUG", ""):
        BUGS[bug]()
    if stalls := os.environ.pop("LEASEHOLD_TEST_STALLS", ""):
        stall(int(stalls.partition(":")[0]), float(stalls.partition(":")[2]))
    if held := os.environ.pop("LEASEHOLD_TEST_HOLD", ""):
        hold(held)
    cli.main()
