"""The connection for writes. The commits of all spaces use it, one after another."""

import asyncio
from types import TracebackType
from typing import Final

from leasehold.engines.postgres.links import SILENCE_SECONDS, Link, time_limit
from leasehold.engines.postgres.pipeline import Pipeline

LIMIT_TRANSACTIONS: Final = """
    SELECT set_config(name, $1, false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'
"""
"""milliseconds. PostgreSQL has this setting since version 17."""
TRANSACTION_SECONDS: Final = 10.0
"""PostgreSQL ends the session of a transaction that lasts longer, so that the other servers get the lock of the head.

Longer than the wait for this lock and a COMMIT together may last. The session's timeout for idle transactions does not
suffice: a session is not idle if its server stops, or its network fails, after a part of a batch has been sent.
"""


class Writer:
    """The connection of `link`. A transaction is made within `async with writer`, which waits until no other task is.

    If the block raises, the connection is dropped, because nothing is known of its state. The task must call `end` at
    last: so the others continue even if an exception has prevented the normal end of the block. The task itself may
    begin another block then.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._pipeline: Pipeline | None = None
        """That of the connection that was used last."""
        self._user: asyncio.Task[object] | None = None
        """The task that is in the block."""
        self._waiting: list[asyncio.Future[None]] = []
        """One for each task that waits, in their order. All are woken, so that none is forgotten if one fails."""
        self.pause = link.pause
        """See `Link.pause`."""

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if self._user is task:
            self.end()  # the end of its last block failed; it would wait for itself
        while self._user is not None:
            is_free = asyncio.get_running_loop().create_future()
            self._waiting.append(is_free)
            try:
                await is_free
            finally:
                self._waiting.remove(is_free)
        self._user = task

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._link.drop()
        self._user = None
        self._wake()

    def end(self) -> None:
        """The task makes no more transactions."""
        if self._user is asyncio.current_task():
            self._link.drop()
            self._user = None
        self._wake()

    def _wake(self) -> None:
        for is_free in self._waiting:
            if not is_free.done():
                is_free.set_result(None)

    async def pipeline(self) -> Pipeline:
        """The pipeline of the connection, a new one if there is none. Raises one of FAILURES."""
        connection = await self._link.connected()
        if self._pipeline is None or self._pipeline.connection is not connection:
            with time_limit(connection, SILENCE_SECONDS):
                await connection.execute(LIMIT_TRANSACTIONS, f"{TRANSACTION_SECONDS * 1_000:.0f}")
            self._pipeline = Pipeline(connection)
        return self._pipeline
