"""A space on PostgreSQL: its connections, reads, lists and feed. Its commits are in `committer`, its fault in `fault`.

All state belongs to the event loop's thread. Connections: one that writes, READERS, LISTS, and one that listens.

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
from leasehold.engines.base import (
    Clock,
    CommitDone,
    Decide,
    MakeIncarnation,
    Moment,
    Published,
    ReadDone,
    new_incarnation,
)
from leasehold.engines.postgres import backups, schema, sql
from leasehold.engines.postgres.cleaner import Cleaner
from leasehold.engines.postgres.committer import Committer, Names, Written
from leasehold.engines.postgres.durability import check_durability
from leasehold.engines.postgres.failures import FAILURES, Reports, as_service_error, as_start_error
from leasehold.engines.postgres.fault import Fault
from leasehold.engines.postgres.feed import Feed
from leasehold.engines.postgres.known_head import Head
from leasehold.engines.postgres.links import CLOSE_SECONDS, Address, Connection, Link
from leasehold.engines.postgres.listener import Listener
from leasehold.engines.postgres.lists import Listed, Lists, sendable
from leasehold.engines.postgres.pool import Pool
from leasehold.engines.postgres.reads import Reads
from leasehold.engines.postgres.tables import TABLES
from leasehold.errors import ServiceError, unavailable
from leasehold.model import KINDS, AnyKind, Change, Changes, Counted, Kind, Page, R, Touched, is_removal
from leasehold.tasks import start_task

T = TypeVar("T")

READERS: Final = 2
LISTS: Final = 2
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
    """The records of one namespace in the database at `url`. The last two arguments are for tests."""

    def __init__(
        self,
        url: str,
        namespace: str,
        *,
        clock: Clock | None = None,
        make_incarnation: MakeIncarnation = new_incarnation,
    ) -> None:
        self._url = url
        self._namespace = namespace
        self._clock = clock
        self._make_incarnation = make_incarnation
        self._head = Head(namespace, make_incarnation)
        self._reports = Reports()
        self._fault = Fault(self._reports, self._commit_nothing, self._publish_every_kind)
        self._feed = Feed(self._may_attempt)
        self._is_open = False
        self._committing: asyncio.Task[None] | None = None
        """The last commit. It may be in flight."""
        self._restoring: set[asyncio.Task[None]] = set()
        self._looked_for_surplus_at = -math.inf
        """By the loop's clock."""

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
        if self._is_open:
            return
        try:
            address = Address(self._url)
        except OSError as failure:
            raise as_start_error(failure) from failure
        self._writer = Link(address)
        try:
            schema_name = await self._prepare(await self._writer.connected())
        except (*FAILURES, ValueError) as failure:
            self._writer.drop()
            raise as_start_error(failure) from failure
        except BaseException:
            self._writer.drop()
            raise
        fault = self._fault
        fault.open()
        self._committer = Committer(self._writer, self._namespace, self._head, fault, self._reports, self._clock)
        lists = [Link(address) for _ in range(LISTS)]
        readers = [Link(address) for _ in range(READERS)]
        listening = Link(address)
        self._links = [self._writer, listening, *lists, *readers]
        self._pool = Pool(lists, fault)
        self._lists = Lists(self._pool, self._namespace, self._clock, self._head.see)
        self._cleaner = Cleaner(self._namespace, self._ask)
        self._reads = Reads(readers, self._namespace, self._clock, fault.retry_seconds, fault.failed, self._head.see)
        self._listener = Listener(
            listening,
            self._namespace,
            f"{schema_name}/{self._namespace}/",
            is_own_process=self._committer.is_own_process,
            committed=self._notified,
            looked=self._looked,
        )
        self._is_open = True
        self._reads.start()
        self._listener.start()

    async def _prepare(self, connection: Connection) -> str:
        """Create the tables and the head if they are missing. Returns the name of the schema."""
        now = time.time_ns() // 1000
        await schema.deploy(connection, schema.load_scripts(), now=now)
        if not await connection.fetchval(sql.USE, self._namespace):
            raise unavailable("the store cannot be opened: `leasehold move` is moving it")
        head = await schema.ensure_head(connection, self._namespace, self._make_incarnation)
        self._head.revision, self._head.incarnation = head
        schema_name = await connection.fetchval(sql.SCHEMA_NAME)
        await connection.execute(sql.FORGET_WRITERS, self._namespace, now - WRITER_MICROSECONDS)
        await check_durability(connection)
        assert isinstance(schema_name, str)
        return schema_name

    async def close(self) -> None:
        if not self._is_open:
            return
        for link in self._links:
            link.stop_retrying()
        with suppress(ServiceError, TimeoutError):  # if it fails, another server takes over some seconds later
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._cleaner.resign()
        self._is_open = False
        self._fault.close()
        if self._committing is not None:
            await asyncio.wait([self._committing])
        await asyncio.gather(*self._restoring, *self._fault.attempts)
        await self._listener.stop()
        self._feed.close()
        await self._reads.close()
        await asyncio.gather(*(link.close() for link in self._links))

    # Reads ----------------------------------------------------------------------------------------------------

    peek = None
    """See `Space.peek`."""

    def read(self, kind: Kind[R], name: str, done: ReadDone[R]) -> None:
        if not self._is_open:
            done(unavailable("the store is closed"))
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
            return await backups.moment(Address(self._url), self._namespace, self._clock)
        except FAILURES as failure:
            raise as_service_error(failure) from failure

    async def changes(self, kind: AnyKind, after_revision: int, prefix: str, limit: int) -> Changes:
        start = sendable(prefix)
        scanned = max(limit, SCANNED_CHANGES) if start else limit
        of_kind, table = sql.OF_KIND[kind], TABLES[kind]

        async def query(connection: Connection) -> list[asyncpg.Record]:
            # The query asks for one more change, which shows whether any are left.
            arguments = (self._namespace, after_revision, start, scanned, limit + 1)
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
        async def query(connection: Connection) -> list[asyncpg.Record]:
            return await connection.fetch(sql.EXPIRED, self._namespace, limit, self._time())

        rows = await self._ask(query)
        if not rows or not await self._cleaner.may_clean():
            return []
        kinds = {kind.name: kind for kind in KINDS}
        return [(kinds[kind], name) for kind, name in rows]

    async def surplus(self, kind: AnyKind, most: int, most_bytes: int, limit: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        if loop.time() < self._looked_for_surplus_at + SURPLUS_SECONDS:
            return []

        async def query(connection: Connection) -> list[asyncpg.Record]:
            return await connection.fetch(sql.OF_KIND[kind].surplus, self._namespace, most, most_bytes, limit)

        rows = await self._ask(query)
        if len(rows) < limit:
            self._looked_for_surplus_at = loop.time()
        if not rows or not await self._cleaner.may_clean():
            return []
        return [row[0] for row in rows]

    async def _ask(self, query: Callable[[Connection], Awaitable[T]]) -> T:
        """Run the query of a list, or a rare query. Raises ServiceError."""
        self._check_open()
        return await self._pool.ask(query)

    def _check_open(self) -> None:
        """Raise `unavailable` if the space is not open."""
        if not self._is_open:
            raise unavailable("the store is closed")

    def _time(self) -> int | None:
        """The parameter `clock` of the statements."""
        return None if self._clock is None else self._clock()

    # Commits --------------------------------------------------------------------------------------------------

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:
        if not self._is_open:
            done(unavailable("the store is closed"))
            return
        error = self._fault.error
        if error is not None and not self._fault.takes_writes():
            done(unavailable(error.message))
            return
        names = Names.of(touched)
        self._committing = start_task(asyncio.get_running_loop(), self._commit(names, decide, done))

    async def _commit(self, names: Names, decide: Decide, done: CommitDone) -> None:
        written: Written | None = None
        knew = self._head.revision
        try:
            result = await self._committer.commit(names, decide)
            if isinstance(result, ServiceError):
                done(result)
                return
            written, knew = result, self._head.revision
            if written is not None:
                self._head.move_to(written.head)
            done(None)
        except BaseException as failure:  # all later commits wait for this one
            report("a commit failed in an unexpected way", failure)
            try:
                self._writer.drop()
            finally:
                done(self._committer.given_up())
            if not isinstance(failure, Exception):
                raise
        finally:
            if written is not None:
                self._publish(written, knew)
            self._feed.catch_up(self._head.revision)

    def _publish(self, written: Written, knew: int) -> None:
        """Publish a commit of this server. `knew`: the head that this server knew before the commit."""
        if written.before > knew:
            self._publish_every_kind()
        hears_others = self._listener.hears_others
        for kind, changes in written.changes.items():
            must_yield = hears_others and TABLES[kind].is_contended and any(map(is_removal, changes))
            delay_seconds = YIELD_SECONDS if must_yield else 0.0
            self._feed.publish(kind, self._head.revision, changes, delay_seconds=delay_seconds)

    # The feed, the head, the fault ----------------------------------------------------------------------------

    def subscribe(self, kind: AnyKind, published: Published) -> None:
        self._feed.subscribe(kind, published)

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
        if revision < self._head.revision and self._is_open:
            # The usual reason is a commit of this server after the read. The statement compares again.
            task = asyncio.get_running_loop().create_task(self._restore_head())
            self._restoring.add(task)
            task.add_done_callback(self._restoring.discard)

    async def _restore_head(self) -> None:
        with suppress(ServiceError):  # the next commit, or the next read of the head, tries again
            await self._pool.ask(self._head.restore, retry_seconds=0.0)

    async def recover(self) -> None:
        if self._fault.error is not None and self._is_open:
            await self._fault.try_to_write()

    async def _commit_nothing(self) -> None:
        await self._pool.ask(self._committer.commit_nothing, retry_seconds=0.0)
