"""Reads of single records. While a query runs, the names for the next query are collected.

Each connection has one task; a read has none. A plain function accepts the read, and a callback gets the record. The
queries grow with the load: with 64 readers a query contains about 30 names. A query reads records of one kind in one
space. Those that have waited longest are next.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import asyncpg

from leasehold.completions import complete_all, report
from leasehold.engines.base import Clock, ReadDone
from leasehold.engines.postgres import record_statements
from leasehold.engines.postgres.failures import FAILURES
from leasehold.engines.postgres.fault import Fault
from leasehold.engines.postgres.links import PAUSE_SECONDS, SILENCE_SECONDS, Connection, Link
from leasehold.engines.postgres.record_statements import joined
from leasehold.engines.postgres.tables import TABLES
from leasehold.errors import ServiceError, internal, unavailable
from leasehold.model import AnyKind, Kind, R, Record
from leasehold.tasks import cancel_and_wait

MAX_GATHERED_NAMES: Final = 1_000

_Done = Callable[[Record | ServiceError | None], None]
"""Gets records of its kind only."""
_Calls = Iterator[tuple[_Done, Record | ServiceError | None]]


class Gathered:
    """The reads of one kind in one space that wait for a query."""

    __slots__ = ("kind", "reads", "waiting")

    def __init__(self, reads: "Reads", kind: AnyKind, waiting: dict[str, list[_Done]]) -> None:
        self.reads = reads
        self.kind = kind
        self.waiting = waiting
        """By name."""

    def calls(self, result: Mapping[str, Record] | ServiceError) -> _Calls:
        """The calls to make: each with its record or None, or all with the same error."""
        if isinstance(result, ServiceError):
            return iter([(done, result) for several in self.waiting.values() for done in several])
        return iter([(done, result.get(name)) for name, several in self.waiting.items() for done in several])


class Reads:
    """The reads of one space. `seen` gets the incarnation, before callers get the records that were read with it."""

    def __init__(self, readers: "Readers", namespace: str, seen: Callable[[str | None], None]) -> None:
        self._readers = readers
        self.namespace = namespace
        self.seen = seen
        self.gathered: dict[AnyKind, Gathered] = {}
        """Those that no query has taken yet."""

    def read(self, kind: Kind[R], name: str, done: ReadDone[R]) -> None:
        """See `Space.read`. If it raises, `done` is not called."""
        readers = self._readers
        if readers.idle:
            readers.wake()
        gathered = self.gathered.get(kind)  # type: ignore[arg-type] # one of several kinds
        if gathered is None:
            gathered = Gathered(self, kind, {})  # type: ignore[arg-type] # as above
            readers.add(gathered)
        waiting = gathered.waiting.get(name)
        if waiting is None:
            gathered.waiting[name] = [done]  # type: ignore[list-item] # its kind is `kind`
        else:
            waiting.append(done)  # type: ignore[arg-type] # as above

    def close(self) -> None:
        """Complete all reads with an error, except those that a query has taken."""
        closed = unavailable("the store is closed")
        for gathered in list(self.gathered.values()):
            self._readers.remove(gathered)
            complete_all(gathered.calls(closed), _unanswered)


class Readers:
    """The queries for the reads of all spaces, on `links`. A failing query is repeated as `fault` says."""

    def __init__(self, links: Sequence[Link], clock: Clock | None, fault: Fault) -> None:
        self._links = links
        self._clock = clock
        self._fault = fault
        self._gathered: deque[Gathered] = deque()
        """In the order in which they began to wait."""
        self.idle: list[asyncio.Future[None]] = []
        """One for each task that has nothing to do."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._serve(link)) for link in self._links]

    async def close(self) -> None:
        """Cancel the queries in flight; their reads are completed with an error. All spaces are closed before."""
        await cancel_and_wait(*self._tasks)
        self._tasks = []

    def wake(self) -> None:
        """Wake a task. It runs in the next iteration of the loop, so the requests of this one share its query."""
        idle = self.idle.pop()
        try:
            idle.set_result(None)
        except BaseException:
            self.idle.append(idle)
            raise

    def add(self, gathered: Gathered) -> None:
        """Put reads at the end of the queue."""
        self._gathered.append(gathered)
        gathered.reads.gathered[gathered.kind] = gathered

    def remove(self, gathered: Gathered) -> None:
        """Take reads out of the queue. If this fails half done, they are still in it, and get no more names."""
        gathered.reads.gathered.pop(gathered.kind, None)
        self._gathered.remove(gathered)

    async def _serve(self, link: Link) -> None:
        """Answer reads until cancelled. Each read that was taken is completed once, even if something raises."""
        while True:
            taken: Gathered | None = None
            calls: _Calls | None = None
            try:
                if not self._gathered:
                    await self._wait_for_reads()
                    continue
                taken = self._take()
                calls = taken.calls(await self._answer(link, taken))
                complete_all(calls, _unanswered)
            except BaseException as failure:
                is_over = isinstance(failure, asyncio.CancelledError)
                error = unavailable("the store is closed") if is_over else internal("the service failed")
                if taken is not None:
                    complete_all(taken.calls(error) if calls is None else calls, _unanswered)
                if not isinstance(failure, Exception):
                    raise
                report("a reader goes on after a fault", failure)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _wait_for_reads(self) -> None:
        idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.idle.append(idle)
        try:
            await idle
        finally:
            if idle in self.idle:
                self.idle.remove(idle)

    def _take(self) -> Gathered:
        """The reads that have waited longest, at most MAX_GATHERED_NAMES names. The others wait again."""
        gathered = self._gathered[0]
        self.remove(gathered)
        waiting = gathered.waiting
        if len(waiting) > MAX_GATHERED_NAMES:
            left = dict(islice(waiting.items(), MAX_GATHERED_NAMES, None))
            self.add(Gathered(gathered.reads, gathered.kind, left))
            gathered.waiting = dict(islice(waiting.items(), MAX_GATHERED_NAMES))
        return gathered

    async def _answer(self, link: Link, gathered: Gathered) -> Mapping[str, Record] | ServiceError:
        try:
            return await self._query(link, gathered)
        except FAILURES as failure:
            return self._fault.failed(failure)

    async def _query(self, link: Link, gathered: Gathered) -> Mapping[str, Record]:
        kind, reads = gathered.kind, gathered.reads
        names = joined(gathered.waiting)
        now = None if self._clock is None else self._clock()

        async def query(connection: Connection) -> list[asyncpg.Record]:
            return await connection.fetch(record_statements.OF_KIND[kind].read, reads.namespace, names, now)

        rows = await link.run(query, retry_seconds=self._fault.retry_seconds(), silence=SILENCE_SECONDS)
        if rows:
            reads.seen(rows[0][-1])
        record = TABLES[kind].record
        return {row[0]: record(*row[:-1]) for row in rows}


def _unanswered() -> ServiceError:
    return internal("the service failed while it answered")
