"""Single reads, gathered: while a query runs, the keys of the next one collect.

Plain functions in, callbacks out, no task for a read; one task for each connection. Queries grow with the load by
themselves: with 64 readers a query carries about 30 keys.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import asyncpg
import structlog

from leasehold.engines.base import Clock, ReadDone
from leasehold.engines.postgres import statements
from leasehold.engines.postgres.links import FAILURES, SILENCE_SECONDS, Connection, Link, is_refusal, told
from leasehold.engines.postgres.statements import entry_of, joined
from leasehold.errors import ServiceError, unavailable
from leasehold.model import Entry

log = structlog.get_logger(__name__)

MAX_GATHERED_KEYS: Final = 1_000


class Reads:
    """Reads on `links`. `retry_seconds` is how long a failing query is tried; `failed` hears when it stayed away.

    `seen` hears the store's incarnation before the entries that were read with it are told.
    """

    def __init__(
        self,
        links: list[Link],
        namespace: str,
        clock: Clock | None,
        retry_seconds: Callable[[], float],
        failed: Callable[[ServiceError], None],
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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        waiting, self._waiting = self._waiting, {}
        _tell(waiting, unavailable("the store is closed"))

    def read(self, key: str, done: ReadDone) -> None:
        """See `Engine.read`."""
        if not self._tasks:
            done(unavailable("the store is closed"))
            return
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = [done]
        else:
            waiting.append(done)
        if self._idle:
            # It wakes in the next turn of the loop, so the requests of this turn share its query.
            self._idle.pop().set_result(None)

    async def _serve(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._waiting:
                idle: asyncio.Future[None] = loop.create_future()
                self._idle.append(idle)
                try:
                    await idle
                finally:
                    if idle in self._idle:
                        self._idle.remove(idle)
                continue
            await self._answer(link, self._take())

    def _take(self) -> dict[str, list[ReadDone]]:
        waiting = self._waiting
        if len(waiting) <= MAX_GATHERED_KEYS:
            self._waiting = {}
            return waiting
        return {key: waiting.pop(key) for key in list(waiting)[:MAX_GATHERED_KEYS]}

    async def _answer(self, link: Link, waiting: dict[str, list[ReadDone]]) -> None:
        keys = joined(waiting)
        now = None if self._clock is None else self._clock()

        async def query(connection: Connection) -> list[asyncpg.Record]:
            return await connection.fetch(statements.READ, self._namespace, keys, now)

        try:
            rows = await link.run(query, retry_seconds=self._retry_seconds(), silence=SILENCE_SECONDS)
        except FAILURES as failure:
            error = told(failure)
            if not is_refusal(failure):
                self._failed(error)
            _tell(waiting, error)
        except asyncio.CancelledError:
            _tell(waiting, unavailable("the store is closed"))
            raise
        else:
            if rows:
                self._seen(rows[0][-1])
            for row in rows:
                entry = entry_of(*row[:-1])
                for done in waiting.pop(entry.key):
                    _complete(done, entry)
            _tell(waiting, None)


def _tell(waiting: dict[str, list[ReadDone]], result: ServiceError | None) -> None:
    """The same to all: an error, or that there is nothing."""
    for several in waiting.values():
        for done in several:
            _complete(done, result)


def _complete(done: ReadDone, result: Entry | ServiceError | None) -> None:
    """One caller's fault must not keep the others from their answers."""
    try:
        done(result)
    except Exception:
        log.exception("an answer could not be given")
