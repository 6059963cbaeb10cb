"""Single reads, gathered: while a query runs, the keys of the next one collect.

Plain functions in, callbacks out, no task for a read; one task for each connection. Queries grow with the load by
themselves: with 64 readers a query carries about 30 keys.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final

import asyncpg

from leasehold.completions import complete_all, report
from leasehold.engines.base import Clock, ReadDone
from leasehold.engines.postgres import statements
from leasehold.engines.postgres.failures import FAILURES
from leasehold.engines.postgres.links import PAUSE_SECONDS, SILENCE_SECONDS, Connection, Link
from leasehold.engines.postgres.statements import entry_of, joined
from leasehold.errors import ServiceError, internal, unavailable
from leasehold.model import Entry
from leasehold.tasks import cancelled

MAX_GATHERED_KEYS: Final = 1_000


class Reads:
    """Reads on `links`. `retry_seconds` is how long a failing query is tried; `failed` says what callers hear then.

    `seen` hears the store's incarnation before the entries that were read with it are told.
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
        self._waiting: dict[str, list[ReadDone]] = {}
        self._idle: list[asyncio.Future[None]] = []
        """One for each task that has nothing to do."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._serve(link)) for link in self._links]

    async def close(self) -> None:
        """End the queries under way; those who wait are told."""
        await cancelled(*self._tasks)
        self._tasks = []
        waiting, self._waiting = self._waiting, {}
        complete_all(iter(_calls(waiting, unavailable("the store is closed"))), _unanswered)

    def read(self, key: str, done: ReadDone) -> None:
        """See `Engine.read`. If it raises, `done` is not called."""
        if not self._tasks:
            done(unavailable("the store is closed"))
            return
        if self._idle:
            # It wakes in the next turn of the loop, so the requests of this turn share its query.
            idle = self._idle.pop()
            try:
                idle.set_result(None)
            except BaseException:
                self._idle.append(idle)
                raise
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = [done]
        else:
            waiting.append(done)

    async def _serve(self, link: Link) -> None:
        """Answer reads until cancelled. Whatever is raised, each read that was taken is completed, once."""
        while True:
            waiting: dict[str, list[ReadDone]] = {}
            calls: Iterator[tuple[ReadDone, Entry | ServiceError | None]] | None = None
            try:
                if not self._waiting:
                    await self._wait_for_reads()
                    continue
                waiting = self._take()
                calls = iter(_calls(waiting, await self._answer(link, waiting)))
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

    def _take(self) -> dict[str, list[ReadDone]]:
        waiting = self._waiting
        if len(waiting) <= MAX_GATHERED_KEYS:
            self._waiting = {}
            return waiting
        taken = dict(islice(waiting.items(), MAX_GATHERED_KEYS))
        self._waiting = dict(islice(waiting.items(), MAX_GATHERED_KEYS, None))
        return taken

    async def _answer(self, link: Link, waiting: Mapping[str, object]) -> Mapping[str, Entry] | ServiceError:
        try:
            return await self._query(link, waiting)
        except FAILURES as failure:
            return self._failed(failure)

    async def _query(self, link: Link, waiting: Mapping[str, object]) -> Mapping[str, Entry]:
        keys = joined(waiting)
        now = None if self._clock is None else self._clock()

        async def query(connection: Connection) -> list[asyncpg.Record]:
            return await connection.fetch(statements.READ, self._namespace, keys, now)

        rows = await link.run(query, retry_seconds=self._retry_seconds(), silence=SILENCE_SECONDS)
        if rows:
            self._seen(rows[0][-1])
        return {row[0]: entry_of(*row[:-1]) for row in rows}


def _calls(
    waiting: Mapping[str, list[ReadDone]], result: Mapping[str, Entry] | ServiceError
) -> list[tuple[ReadDone, Entry | ServiceError | None]]:
    """Whom to tell what: the entry, None if there is none, or to all the same error."""
    if isinstance(result, ServiceError):
        return [(done, result) for several in waiting.values() for done in several]
    return [(done, result.get(key)) for key, several in waiting.items() for done in several]


def _unanswered() -> ServiceError:
    return internal("the service failed while it answered")
