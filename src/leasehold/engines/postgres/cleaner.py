"""Which server of all cleans up what has expired: the one that has signed the row of the cleaner, in `writers`.

It signs again while there is something to clean up; what it signed is good for CLEANER_SECONDS by the database's
clock, and another server takes over then, or at once when this one stops. No lock of a session: a pooler may give each
transaction another session. Nothing depends on there being one cleaner only, except how much is done twice.
"""

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from leasehold.engines.postgres import statements
from leasehold.engines.postgres.links import Connection

CLEANER: Final = UUID(int=0)
"""In place of a server's own id."""
CLEANER_SECONDS: Final = 15.0
SIGN_SECONDS: Final = 5.0
"""So long the signature is not looked at again."""

Run = Callable[[Callable[[Connection], Awaitable[bool]]], Awaitable[bool]]
"""Runs a query on a connection of its own."""


class Cleaner:
    """One server's part in it."""

    def __init__(self, namespace: str, run: Run) -> None:
        self._namespace = namespace
        self._run = run
        self._number = secrets.randbits(63)
        """With which it signs."""
        self._signed_at = -math.inf

    async def is_own_turn(self) -> bool:
        """To be asked only when there is something to clean up. Raises what `run` raises."""
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
        now = await connection.fetchval(statements.CLOCK)
        before = now - round(CLEANER_SECONDS * 1_000_000)
        arguments = (self._namespace, CLEANER, self._number, now, before)
        return await connection.fetchval(statements.SIGN_AS_CLEANER, *arguments) is not None

    async def _withdraw(self, connection: Connection) -> bool:
        await connection.execute(statements.STOP_CLEANING, self._namespace, CLEANER, self._number)
        return True
