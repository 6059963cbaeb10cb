"""Which of the servers removes what has expired: the one that has signed the cleaner's row in `writers`.

It signs again while there is something to remove. A signature is valid for CLEANER_SECONDS by the database's clock;
then another server takes over, or at once when this one stops. It is not a session lock, because a pooler may give each
transaction another session. Two cleaners at once would do no harm, only some work twice.
"""

import asyncio
import math
import secrets
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg

from leasehold.engines.base import Clock
from leasehold.engines.postgres import cleaning_statements, head_statements, namespaces
from leasehold.engines.postgres.links import Connection
from leasehold.engines.postgres.pool import Pool
from leasehold.model import KINDS, AnyKind
from leasehold.namespaces import DEFAULT_NAMESPACE

CLEANER: Final = UUID(int=0)
"""The writer of that row; no server has this id."""
CLEANER_SECONDS: Final = 15.0
SIGN_SECONDS: Final = 5.0
"""The minimum time between two renewals of the signature."""

LEFTOVERS_SECONDS: Final = 30.0
"""The time between two looks for deleted namespaces that still have rows, because a server was stopped meanwhile."""
LEFTOVER_PORTIONS: Final = 10
"""At most so many portions are removed at a time, so that what has expired elsewhere does not wait."""
_KINDS: Final = {kind.name: kind for kind in KINDS}


class Cleaner:
    """This server's attempts to become the cleaner, and what the cleaner gets. It is that of all namespaces."""

    def __init__(self, pool: Pool, clock: Clock | None) -> None:
        self._ask = pool.ask
        self._clock = clock
        self._number = secrets.randbits(63)
        """The signature of this server."""
        self._signed_at = -math.inf
        self._looked_for_leftovers_at = -math.inf

    async def expired(self, limit: int) -> Sequence[tuple[str, AnyKind, str]]:
        """See `Engine.expired`: one query for all namespaces."""

        async def query(connection: Connection) -> list[asyncpg.Record]:
            now = None if self._clock is None else self._clock()
            return await connection.fetch(cleaning_statements.EXPIRED, limit, now)

        await self._remove_leftovers()
        rows = await self._ask(query)
        if not rows or not await self._may_clean():
            return []
        return [(namespace, _KINDS[kind], name) for namespace, kind, name in rows]

    async def _remove_leftovers(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._looked_for_leftovers_at + LEFTOVERS_SECONDS:
            return
        self._looked_for_leftovers_at = loop.time()
        portions = LEFTOVER_PORTIONS
        for namespace in await self._ask(namespaces.not_empty):
            while portions and await self._remove_some(namespace):
                portions -= 1
        if not portions:
            self._looked_for_leftovers_at = -math.inf  # the next call continues

    async def empty(self, namespace: str) -> None:
        """Remove all rows of a namespace that was deleted, unless it is created again. Raises ServiceError."""
        while await self._remove_some(namespace):
            pass

    async def _remove_some(self, namespace: str) -> bool:
        return await self._ask(lambda connection: namespaces.remove_some(connection, namespace))

    async def _may_clean(self) -> bool:
        """Whether this server is the cleaner. Called when there is something to remove. Raises ServiceError."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._signed_at + SIGN_SECONDS:
            return True
        began = loop.time()
        if not await self._ask(self._sign):
            return False
        self._signed_at = began
        return True

    async def resign(self) -> None:
        """Let another server take over at once. Raises ServiceError."""
        if self._signed_at > -math.inf:
            self._signed_at = -math.inf
            await self._ask(self._withdraw)

    async def _sign(self, connection: Connection) -> bool:
        now = await connection.fetchval(head_statements.CLOCK)
        before = now - round(CLEANER_SECONDS * 1_000_000)
        arguments = (DEFAULT_NAMESPACE, CLEANER, self._number, now, before)
        return await connection.fetchval(cleaning_statements.SIGN_AS_CLEANER, *arguments) is not None

    async def _withdraw(self, connection: Connection) -> bool:
        await connection.execute(cleaning_statements.STOP_CLEANING, DEFAULT_NAMESPACE, CLEANER, self._number)
        return True
