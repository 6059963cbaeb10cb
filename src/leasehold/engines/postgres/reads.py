"""Reads of single records. While a query runs, the names for the next query are collected.

Each connection has one task; a read has none. A plain function accepts the read, and a callback gets the record. The
queries grow with the load: with 64 readers a query contains about 30 names. A query reads records of one kind. The
kind that has waited longest is next.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final

import asyncpg

from leasehold.completions import complete_all, report
from leasehold.engines.base import Clock, ReadDone
from leasehold.engines.postgres import sql
from leasehold.engines.postgres.failures import FAILURES
from leasehold.engines.postgres.links import PAUSE_SECONDS, SILENCE_SECONDS, Connection, Link
from leasehold.engines.postgres.sql import joined
from leasehold.engines.postgres.tables import TABLES
from leasehold.errors import ServiceError, internal, unavailable
from leasehold.model import AnyKind, Kind, R, Record
from leasehold.tasks import cancel_and_wait

MAX_GATHERED_NAMES: Final = 1_000

_Done = Callable[[Record | ServiceError | None], None]
"""Gets records of its kind only."""
_Waiting = dict[str, list[_Done]]
"""The reads of one kind, by name."""


class Reads:
    """Reads on `links`. A failing query is repeated for `retry_seconds`. `failed` makes the error for callers.

    `seen` is called with the incarnation, before callers get the records that were read with it.
    """

    def __init__(
        self,
        links: list[Link],
        namespace: str,
        clock: Clock | None,
        retry_seconds: Callable[[], float],
        failed: Callable[[BaseException], ServiceError],
        seen: Callable[[str | None], None],
    ) -> None:
        self._links = links
        self._namespace = namespace
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._failed = failed
        self._seen = seen
        self._waiting: dict[AnyKind, _Waiting] = {}
        """The kinds are in the order in which they began to wait."""
        self._idle: list[asyncio.Future[None]] = []
        """One for each task that has nothing to do."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._serve(link)) for link in self._links]

    async def close(self) -> None:
        """Cancel the queries in flight. All reads that are not answered are completed with an error."""
        await cancel_and_wait(*self._tasks)
        self._tasks = []
        waiting, self._waiting = self._waiting, {}
        closed = unavailable("the store is closed")
        complete_all((call for of_kind in waiting.values() for call in _calls(of_kind, closed)), _unanswered)

    def read(self, kind: Kind[R], name: str, done: ReadDone[R]) -> None:
        """See `Space.read`. If it raises, `done` is not called."""
        if not self._tasks:
            done(unavailable("the store is closed"))
            return
        if self._idle:
            # The task wakes in the next loop iteration, so the requests of this iteration share its query.
            idle = self._idle.pop()
            try:
                idle.set_result(None)
            except BaseException:
                self._idle.append(idle)
                raise
        of_kind = self._waiting.get(kind)  # type: ignore[arg-type] # one of several kinds
        if of_kind is None:
            of_kind = self._waiting[kind] = {}  # type: ignore[index] # as above
        waiting = of_kind.get(name)
        if waiting is None:
            of_kind[name] = [done]  # type: ignore[list-item] # its kind is `kind`
        else:
            waiting.append(done)  # type: ignore[arg-type] # as above

    async def _serve(self, link: Link) -> None:
        """Answer reads until cancelled. Each read that was taken is completed once, even if something raises."""
        while True:
            waiting: _Waiting = {}
            calls: Iterator[tuple[_Done, Record | ServiceError | None]] | None = None
            try:
                if not self._waiting:
                    await self._wait_for_reads()
                    continue
                kind, waiting = self._take()
                calls = iter(_calls(waiting, await self._answer(link, kind, waiting)))
                complete_all(calls, _unanswered)
            except BaseException as failure:
                is_over = isinstance(failure, asyncio.CancelledError)
                error = unavailable("the store is closed") if is_over else internal("the service failed")
                complete_all(iter(_calls(waiting, error)) if calls is None else calls, _unanswered)
                if not isinstance(failure, Exception):
                    raise
                report("a reader goes on after a fault", failure)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _wait_for_reads(self) -> None:
        idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(idle)
        try:
            await idle
        finally:
            if idle in self._idle:
                self._idle.remove(idle)

    def _take(self) -> tuple[AnyKind, _Waiting]:
        kind = next(iter(self._waiting))
        waiting = self._waiting.pop(kind)
        if len(waiting) <= MAX_GATHERED_NAMES:
            return kind, waiting
        self._waiting[kind] = dict(islice(waiting.items(), MAX_GATHERED_NAMES, None))
        return kind, dict(islice(waiting.items(), MAX_GATHERED_NAMES))

    async def _answer(
        self, link: Link, kind: AnyKind, waiting: Mapping[str, object]
    ) -> Mapping[str, Record] | ServiceError:
        try:
            return await self._query(link, kind, waiting)
        except FAILURES as failure:
            return self._failed(failure)

    async def _query(self, link: Link, kind: AnyKind, waiting: Mapping[str, object]) -> Mapping[str, Record]:
        names = joined(waiting)
        now = None if self._clock is None else self._clock()

        async def query(connection: Connection) -> list[asyncpg.Record]:
            return await connection.fetch(sql.OF_KIND[kind].read, self._namespace, names, now)

        rows = await link.run(query, retry_seconds=self._retry_seconds(), silence=SILENCE_SECONDS)
        if rows:
            self._seen(rows[0][-1])
        record = TABLES[kind].record
        return {row[0]: record(*row[:-1]) for row in rows}


def _calls(
    waiting: _Waiting, result: Mapping[str, Record] | ServiceError
) -> list[tuple[_Done, Record | ServiceError | None]]:
    """The calls to make: each with its record or None, or all with the same error."""
    if isinstance(result, ServiceError):
        return [(done, result) for several in waiting.values() for done in several]
    return [(done, result.get(name)) for name, several in waiting.items() for done in several]


def _unanswered() -> ServiceError:
    return internal("the service failed while it answered")
