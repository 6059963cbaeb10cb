"""Connections for lists and for rare queries."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from leasehold.engines.postgres.failures import FAILURES
from leasehold.engines.postgres.fault import Fault
from leasehold.engines.postgres.links import Connection, Link
from leasehold.errors import unavailable

T = TypeVar("T")

LIST_SILENCE_SECONDS: Final = 15.0
"""Longer than for other queries, because a page may be large."""
WAIT_SECONDS: Final = LIST_SILENCE_SECONDS
"""A caller waits so long for a link: at least as long as those that are in use may take for one query."""


class Pool:
    """Each of `links` runs one query at a time. The link that was used last is taken first."""

    def __init__(self, links: Sequence[Link], fault: Fault) -> None:
        self._links: asyncio.LifoQueue[Link] = asyncio.LifoQueue()
        for link in links:
            self._links.put_nowait(link)
        self._fault = fault

    async def ask(self, query: Callable[[Connection], Awaitable[T]], *, retry_seconds: float | None = None) -> T:
        """Run a query. It is repeated while its failure is transient, for `retry_seconds`. Raises ServiceError."""
        link = await self._next_link()
        try:
            seconds = self._fault.retry_seconds() if retry_seconds is None else retry_seconds
            return await link.run(query, retry_seconds=seconds, silence=LIST_SILENCE_SECONDS)
        except FAILURES as failure:
            raise self._fault.failed(failure) from failure
        finally:
            self._links.put_nowait(link)

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """A connection for several queries, which are not repeated. A failure in the block becomes a ServiceError.

        If the block ends with an exception, the connection is dropped, unless the block belongs to a generator that was
        closed: such a block must leave the connection without a transaction.
        """
        link = await self._next_link()
        try:
            yield await link.connected()
        except GeneratorExit:
            raise
        except FAILURES as failure:
            link.drop()
            raise self._fault.failed(failure) from failure
        except BaseException:
            link.drop()
            raise
        finally:
            self._links.put_nowait(link)

    async def _next_link(self) -> Link:
        """Wait for a link that is not in use. It must be put back."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await self._links.get()
        except TimeoutError as timeout:
            raise unavailable("too many requests wait for a connection to the database") from timeout
