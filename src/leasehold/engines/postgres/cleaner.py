"""Which of the servers removes what has expired: the one that has signed the cleaner's row in `writers`.

It signs again while there is something to remove. A signature is valid for CLEANER_SECONDS by the database's clock;
then another server takes over, or at once when this one stops. It is not a session lock, because a pooler may give each
transaction another session. Two cleaners at once would do no harm, only some work twice.
"""

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from leasehold.engines.postgres import sql
from leasehold.engines.postgres.links import Connection

CLEANER: Final = UUID(int=0)
"""The writer of that row; no server has this id."""
CLEANER_SECONDS: Final = 15.0
SIGN_SECONDS: Final = 5.0
"""The minimum time between two renewals of the signature."""

Run = Callable[[Callable[[Connection], Awaitable[bool]]], Awaitable[bool]]
"""Runs a query on a connection of the pool."""


class Cleaner:
    """This server's attempts to become the cleaner."""

    def __init__(self, namespace: str, run: Run) -> None:
        self._namespace = namespace
        self._run = run
        self._number = secrets.randbits(63)
        """The signature of this server."""
        self._signed_at = -math.inf

    async def may_clean(self) -> bool:
        """Whether this server is the cleaner. Called when there is something to remove. Raises what `run` raises."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._signed_at + SIGN_SECONDS:
            return True
        began = loop.time()
        if not await self._run(self._sign):
            return False
        self._signed_at = began
        return True

    async def resign(self) -> None:
        """Let another server take over at once. Raises what `run` raises."""
        if self._signed_at > -math.inf:
            self._signed_at = -math.inf
            await self._run(self._withdraw)

    async def _sign(self, connection: Connection) -> bool:
        now = await connection.fetchval(sql.CLOCK)
        before = now - round(CLEANER_SECONDS * 1_000_000)
        arguments = (self._namespace, CLEANER, self._number, now, before)
        return await connection.fetchval(sql.SIGN_AS_CLEANER, *arguments) is not None

    async def _withdraw(self, connection: Connection) -> bool:
        await connection.execute(sql.STOP_CLEANING, self._namespace, CLEANER, self._number)
        return True
