"""The connection for writes. The commits of all spaces use it, one after another."""

import asyncio
from types import TracebackType

from leasehold.engines.postgres.links import Link
from leasehold.engines.postgres.pipeline import Pipeline


class Writer:
    """The connection of `link`. A transaction is made within `async with writer`, which waits for its turn.

    If the block raises, the connection is dropped, because nothing is known of its state.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._pipeline: Pipeline | None = None
        """That of the connection that was used last."""
        self._turn = asyncio.Lock()
        self.pause = link.pause
        """See `Link.pause`."""

    async def __aenter__(self) -> None:
        await self._turn.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._link.drop()
        finally:
            self._turn.release()

    async def pipeline(self) -> Pipeline:
        """The pipeline of the connection, a new one if there is none. Raises one of FAILURES."""
        connection = await self._link.connected()
        if self._pipeline is None or self._pipeline.connection is not connection:
            self._pipeline = Pipeline(connection)
        return self._pipeline
