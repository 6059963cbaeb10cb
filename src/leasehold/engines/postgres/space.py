"""A space on PostgreSQL: its head, its feed, its reads and lists.

It shares the connections and the fault with the other spaces of the server (`database`). Its commits are in
`committer`. All state belongs to the event loop's thread.

The feed. A commit of this server is published with its changes. A commit of another server is known by notification
and published without changes. If a commit of this server found a larger head than this server knew, a publication
without changes of every kind comes first. So when changes are published, all earlier changes have been published, too.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Final, TypeVar

import asyncpg

from leasehold.completions import report
from leasehold.engines import base
from leasehold.engines.base import CommitDone, Decide, Moment, Published, ReadDone
from leasehold.engines.postgres import backups, head_statements, record_statements
from leasehold.engines.postgres.change_writer import Written
from leasehold.engines.postgres.committer import Batch, Committer
from leasehold.engines.postgres.database import Database
from leasehold.engines.postgres.failures import FAILURES, as_service_error
from leasehold.engines.postgres.feed import Feed
from leasehold.engines.postgres.known_head import Head
from leasehold.engines.postgres.links import Connection
from leasehold.engines.postgres.listener import SpaceEvents
from leasehold.engines.postgres.lists import Listed, Lists, sendable
from leasehold.engines.postgres.reads import Reads
from leasehold.engines.postgres.tables import TABLES
from leasehold.engines.postgres.turns import Turn
from leasehold.engines.postgres.view import Names
from leasehold.errors import ServiceError, no_such_namespace, unavailable
from leasehold.model import KINDS, AnyKind, Change, Changes, Counted, Kind, Page, R, Touched, is_removal
from leasehold.tasks import start_task

T = TypeVar("T")

YIELD_SECONDS: Final = 0.002
"""The delay before removals of a contended kind are published here, while other servers commit, too.

Other servers get the removals later, by notification. Without the delay, the waiters of this server would have an
advantage: of two servers with 8 waiters each, one got the lock 1.1 to 8.6 times as often as the other. With the delay
the ratio is 1.0."""
WRITER_MICROSECONDS: Final = 7 * 86_400 * 1_000_000
"""At the start, rows in `writers` that are older than a week are deleted. A server needs its row for seconds."""
SCANNED_CHANGES: Final = 2_000
"""Changes of any name that one query for the changes under a prefix reads: 4 ms."""
SURPLUS_SECONDS: Final = 5.0
"""The time between two queries for surplus records, each of which reads all records of the kind: 60 ms for 100,000."""


class PostgresSpace:
    """The records of one namespace in `database`."""

    def __init__(
        self,
        database: Database,
        namespace: str,
        ended: Callable[["PostgresSpace"], None],
        deleted: Callable[["PostgresSpace"], None],
        known_revision: int = 0,
    ) -> None:
        """`ended` is called when the space was closed or could not be opened.

        `deleted` is called when this server learns that another one has deleted the namespace. `known_revision`: what
        an earlier space of the namespace knew to be committed.
        """
        self._database = database
        self.namespace = namespace
        self._ended = ended
        self._deleted = deleted
        self._known_revision = known_revision
        self._fault = database.fault
        self._head = Head(namespace, database.make_incarnation)
        self._feed = Feed(self._may_attempt)
        self.is_open = False
        self._refusal: Callable[[], ServiceError] | None = _closed
        """Makes the error of everything while the space is not open, or if its namespace was deleted."""
        self._committing: asyncio.Task[None] | None = None
        """The last commit. It may be in flight."""
        self._turn: Turn | None = None
        """The last turn. It may be over."""
        self._restoring: set[asyncio.Task[None]] = set()
        self._looked_for_surplus = -1, -math.inf
        """At which head, and when by the loop's clock."""

    @property
    def revision(self) -> int:
        return self._head.revision

    @property
    def incarnation(self) -> str:
        return self._head.incarnation

    @property
    def fault(self) -> ServiceError | None:
        return self._fault.error

    def gauges(self) -> Mapping[str, float]:
        return {}  # a count of the records would need a query over all of them

    # Start and end --------------------------------------------------------------------------------------------

    async def open(self) -> None:
        if self.is_open:
            return
        self._head.forget()
        database, namespace = self._database, self.namespace
        # Before the head is read, so that no later commit is missed.
        self._events = SpaceEvents(
            self._is_own_process, self._notified, self._looked, self._publish_every_kind, self._was_deleted
        )
        await database.join(namespace, self._events)
        self._committer = Committer(database, namespace, self._head)
        self._lists = Lists(database.pool, namespace, database.clock, self._head.see)
        self._reads = Reads(database.readers, namespace, self._head.see)
        try:
            head = await database.ask(self._prepare)
        except BaseException:
            await self._leave()
            raise
        if head is None:
            await self._leave()
            raise no_such_namespace()
        revision, incarnation = head
        self._head.move_to(max(revision, self._known_revision))
        self._head.see(incarnation)
        self.is_open = True
        self._refusal = None

    async def _leave(self) -> None:
        await self._database.begin_to_leave(self.namespace, self._events)
        await self._database.leave()
        self._ended(self)

    async def _prepare(self, connection: Connection) -> tuple[int, str] | None:
        """Returns the revision and the incarnation; None: there is no such namespace."""
        row = await connection.fetchrow(head_statements.HEAD, self.namespace)
        if row is None or row["deleted_at"] is not None:
            return None
        before = time.time_ns() // 1000 - WRITER_MICROSECONDS
        await connection.execute(head_statements.FORGET_WRITERS, self.namespace, before)
        return row["revision"], row["incarnation"]

    async def close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._refusal = self._refusal or _closed
        await self._database.begin_to_leave(self.namespace, self._events)
        if self._committing is not None:
            await asyncio.wait([self._committing])
        await asyncio.gather(*self._restoring)
        self._feed.close()
        self._reads.close()
        await self._database.leave()
        self._ended(self)

    def mark_deleted(self) -> None:
        """Refuse everything from now on: the namespace was deleted."""
        self._refusal = no_such_namespace

    # Reads ----------------------------------------------------------------------------------------------------

    peek = None
    """See `Space.peek`."""

    def read(self, kind: Kind[R], name: str, done: ReadDone[R]) -> None:
        if self._refusal is not None:
            done(self._refusal())
            return
        self._reads.read(kind, name, done)

    async def scan(
        self, kind: Kind[R], prefix: str, after: str | None, limit: int, *, is_reversed: bool = False
    ) -> Page[R]:
        self._check_open()
        return await self._lists.scan(kind, Listed(prefix, after, limit, is_reversed))

    async def count(
        self, kind: Kind[R], prefix: str, after: str | None, limit: int, *, is_reversed: bool = False
    ) -> Counted:
        self._check_open()
        return await self._lists.count(kind, Listed(prefix, after, limit, is_reversed))

    async def read_all(self, kind: Kind[R], names: Sequence[str]) -> AsyncGenerator[Page[R]]:
        self._check_open()
        async with aclosing(self._lists.read_all(kind, names)) as pages:
            async for page in pages:
                yield page

    async def moment(self) -> Moment:
        self._check_open()
        try:
            return await backups.moment(self._database.address, self.namespace, self._database.clock)
        except FAILURES as failure:
            raise as_service_error(failure) from failure

    async def changes(self, kind: AnyKind, after_revision: int, prefix: str, limit: int) -> Changes:
        start = sendable(prefix)
        scanned = max(limit, SCANNED_CHANGES) if start else limit
        of_kind, table = record_statements.OF_KIND[kind], TABLES[kind]

        async def query(connection: Connection) -> list[asyncpg.Record]:
            # The query asks for one more change, which shows whether any are left.
            arguments = (self.namespace, after_revision, start, scanned, limit + 1)
            rows = await connection.fetch(of_kind.changes, *arguments)
            return rows if rows[0][2] else await connection.fetch(of_kind.changes_of_tables, *arguments)

        rows = await self._ask(query)
        head, compacted, _, is_end, scanned_to = rows[0][:5]
        # Every engine keeps the same number of changes, so that all make the same promise.
        oldest = max(compacted, head - base.HISTORY_CHANGES) if kind.has_history else head
        if after_revision < oldest:
            raise base.compacted(oldest)
        changes: list[Change] = [
            table.record(*row[8:]) if row[7] else kind.removal(row[5], row[6]) for row in rows if row[5] is not None
        ]
        complete_to = head if is_end else scanned_to
        if len(changes) > limit:
            complete_to = changes[limit - 1].revision
            changes = [change for change in changes if change.revision <= complete_to]
        return Changes(changes, complete_to)

    async def expired(self, limit: int) -> Sequence[tuple[AnyKind, str]]:
        """Those of `Engine.expired` that are in this space."""
        self._check_open()
        found = await self._database.cleaner.expired(limit)
        return [(kind, name) for namespace, kind, name in found if namespace == self.namespace]

    async def surplus(self, kind: AnyKind, most: int, most_bytes: int, limit: int) -> Sequence[str]:
        """See `Engine.surplus`. Without a query if nothing was committed since the last one."""
        loop = asyncio.get_running_loop()
        head, looked_at = self._looked_for_surplus
        if head == self._head.revision or loop.time() < looked_at + SURPLUS_SECONDS:
            return []
        head = self._head.revision

        async def query(connection: Connection) -> list[asyncpg.Record]:
            return await connection.fetch(
                record_statements.OF_KIND[kind].surplus, self.namespace, most, most_bytes, limit
            )

        rows = await self._ask(query)
        if len(rows) < limit:
            self._looked_for_surplus = head, loop.time()
        return [row[0] for row in rows]

    async def _ask(self, query: Callable[[Connection], Awaitable[T]]) -> T:
        """Run the query of a list, or a rare query. Raises ServiceError."""
        self._check_open()
        return await self._database.ask(query)

    def _check_open(self) -> None:
        """Raise the error of a space that is closed, or whose namespace was deleted."""
        if self._refusal is not None:
            raise self._refusal()

    # Commits --------------------------------------------------------------------------------------------------

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:
        if self._refusal is not None:
            done(self._refusal())
            return
        error = self._fault.error
        if error is not None and not self._fault.takes_writes():
            done(unavailable(error.message))
            return
        batch = Batch(Names.of(touched), decide)
        if self._turn is not None and self._turn.is_given:
            self._turn.commit(batch, done)
        else:
            self._committing = start_task(asyncio.get_running_loop(), self._commit(batch, done))

    @property
    def turn(self) -> Callable[[Callable[[], None]], None] | None:
        is_possible = self._refusal is None and self._fault.takes_writes()
        return self._wait_for_turn if is_possible and self._committer.is_contended else None

    def _wait_for_turn(self, ready: Callable[[], None]) -> None:
        turn = Turn(ready)
        self._committing = start_task(asyncio.get_running_loop(), self._commit(turn.take, turn.done))
        self._turn = turn

    async def _commit(self, batch: Batch | Callable[[], Batch], done: CommitDone) -> None:
        written: Written | None = None
        knew = self._head.revision
        try:
            result = await self._committer.commit(batch)
            if isinstance(result, ServiceError):
                done(result)
                if result.code == "no_such_namespace":
                    self._was_deleted(self._head.incarnation)
                return
            written, knew = result, self._head.revision
            if written is not None:
                self._head.move_to(written.head)
            done(None)
        except BaseException as failure:  # all later commits wait for this one
            report("a commit failed in an unexpected way", failure)
            done(self._committer.given_up())
            if not isinstance(failure, Exception):
                raise
        finally:
            if written is not None:
                self._publish(written, knew)
            self._feed.catch_up(self._head.revision)

    def _publish(self, written: Written, knew: int) -> None:
        """Publish a commit of this server. `knew`: the head that this server knew before the commit."""
        listener = self._database.listener
        if written.before > knew:
            listener.note_others(self.namespace)
            self._publish_every_kind()
        hears_others = listener.hears_others(self.namespace)
        for kind, changes in written.changes.items():
            must_yield = hears_others and TABLES[kind].is_contended and any(map(is_removal, changes))
            delay_seconds = YIELD_SECONDS if must_yield else 0.0
            self._feed.publish(kind, self._head.revision, changes, delay_seconds=delay_seconds)
        if not written.is_told:
            listener.notifications.add(self.namespace, written.head, written.changes)

    # The feed, the head, the fault ----------------------------------------------------------------------------

    def subscribe(self, kind: AnyKind, published: Published) -> None:
        self._feed.subscribe(kind, published)

    def _is_own_process(self, process: int) -> bool:
        return self._committer.is_own_process(process)

    def _was_deleted(self, incarnation: str) -> None:
        """Handle the news that the namespace was deleted while it had this incarnation."""
        if self.is_open and self._refusal is None and incarnation == self._head.incarnation:
            self.mark_deleted()
            self._deleted(self)

    def _may_attempt(self) -> bool:
        """Whether a change that a subscriber attempts now may be committed."""
        return self._fault.takes_writes() and not self._committer.is_in_doubt

    def _publish_every_kind(self) -> None:
        """Say that there may be changes of any kind that this server does not know."""
        self._feed.publish_unknown(KINDS, self._head.revision)

    def _notified(self, revision: int, kinds: Sequence[AnyKind]) -> None:
        """Handle a notification. `kinds` is empty if this server made the commit."""
        self._head.move_to(revision)
        self._feed.publish_unknown(kinds, self._head.revision)

    def _looked(self, revision: int, incarnation: str | None, may_have_missed: bool) -> None:  # noqa: FBT001
        """Handle the head that was read just now."""
        self._head.see(incarnation)
        if self._head.move_to(revision) or may_have_missed:
            self._publish_every_kind()
        if revision < self._head.revision and self.is_open:
            # The usual reason is a commit of this server after the read. The statement compares again.
            task = asyncio.get_running_loop().create_task(self._restore_head())
            self._restoring.add(task)
            task.add_done_callback(self._restoring.discard)

    async def _restore_head(self) -> None:
        with suppress(ServiceError):  # the next commit, or the next read of the head, tries again
            await self._database.pool.ask(self._head.restore, retry_seconds=0.0)

    async def recover(self) -> None:
        """See `Engine.recover`."""
        await self._database.recover()


def _closed() -> ServiceError:
    return unavailable("the store is closed")
