"""Lists: pages of records, counts, and several records of one moment. They use the connections of the pool.

The size of a value is known only once it is read, and a page of 512 values could have half a gigabyte. So each query is
given a weight (`record_statements.KindStatements`), at which PostgreSQL ends the page before it reads the values.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

import asyncpg
import msgspec

from leasehold.engines.base import Clock
from leasehold.engines.postgres import record_statements
from leasehold.engines.postgres.links import Connection, time_limit
from leasehold.engines.postgres.pool import LIST_SILENCE_SECONDS, Pool
from leasehold.engines.postgres.record_statements import joined
from leasehold.engines.postgres.tables import table_of
from leasehold.keys import BEHIND_ANY_KEY
from leasehold.limits import MIB
from leasehold.model import Counted, Kind, Page, R

PAGE_WEIGHT: Final = 1 * MIB
"""The weight of a page. It is exceeded by at most one record."""
COUNTED_AT_ONCE: Final = 10_000
"""The most records that one query counts: 10 ms."""
_ANY_WEIGHT: Final = 2**62


class Listed(msgspec.Struct, frozen=True):
    """What is to be listed; see `Space.scan`."""

    prefix: str
    after: str | None
    limit: int
    is_reversed: bool

    def range(self) -> tuple[str, str, str]:
        """The parameters `from`, `after` and `before` of the statements."""
        start, after = sendable(self.prefix), sendable(self.after or "")
        behind = start + BEHIND_ANY_KEY
        if self.is_reversed and self.after is not None:
            return start, "", min(after, behind)
        return start, after, behind


class Lists:
    """The lists of one space. `seen` is called with the incarnation of records whose ETags may be compared."""

    def __init__(self, pool: Pool, namespace: str, clock: Clock | None, seen: Callable[[str | None], None]) -> None:
        self._pool = pool
        self._namespace = namespace
        self._clock = clock
        self._seen = seen

    async def scan(self, kind: Kind[R], listed: Listed) -> Page[R]:
        """See `Space.scan`."""
        of_kind = record_statements.OF_KIND[kind]  # type: ignore[index] # one of several kinds
        statement = of_kind.scan_back if listed.is_reversed else of_kind.scan
        limit = listed.limit

        async def query(connection: Connection) -> list[asyncpg.Record]:
            # The query asks for one more record, which shows whether there is a next page.
            arguments = (*listed.range(), limit + 1, self._time(), PAGE_WEIGHT)
            return await connection.fetch(statement, self._namespace, *arguments)

        rows = await self._pool.ask(query)
        revision, found = rows[0][:2]
        record = table_of(kind).record
        page = [record(*row[2:]) for row in rows[:limit]] if found else []
        return Page(page, revision, page[-1].name if page and found > len(page) else None)

    async def count(self, kind: Kind[R], listed: Listed) -> Counted:
        """See `Space.count`."""
        of_kind = record_statements.OF_KIND[kind]  # type: ignore[index] # one of several kinds
        statement = of_kind.count_back if listed.is_reversed else of_kind.count
        limit = min(listed.limit, COUNTED_AT_ONCE)

        async def query(connection: Connection) -> list[asyncpg.Record]:
            return await connection.fetch(statement, self._namespace, *listed.range(), limit, self._time())

        revision, count, last = (await self._pool.ask(query))[0]
        return Counted(count, revision, last, is_complete=count < limit)

    async def read_all(self, kind: Kind[R], names: Sequence[str]) -> AsyncGenerator[Page[R]]:
        """See `Space.read_all`. Usually all records are in one page, which takes one query."""
        found = await self._pool.ask(lambda connection: self._together(connection, kind, names, PAGE_WEIGHT))
        if found is not None:
            yield found
            return
        async with (
            self._pool.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),  # all its queries see one moment
        ):
            left = [names]
            while left:
                part = left.pop()
                weight = PAGE_WEIGHT if len(part) > 1 else _ANY_WEIGHT
                with time_limit(connection, LIST_SILENCE_SECONDS):
                    found = await self._together(connection, kind, part, weight)
                if found is not None:
                    yield found
                else:
                    middle = len(part) // 2
                    left += part[middle:], part[:middle]

    async def _together(
        self, connection: Connection, kind: Kind[R], names: Sequence[str], weight: int
    ) -> Page[R] | None:
        """All records with these names. None: they have more weight."""
        statement = record_statements.OF_KIND[kind].read_all  # type: ignore[index] # one of several kinds
        sent = joined(dict.fromkeys(names))
        rows = await connection.fetch(statement, self._namespace, sent, self._time(), weight)
        revision, incarnation, is_heavy = rows[0][:3]
        if is_heavy:
            return None
        self._seen(incarnation)
        record = table_of(kind).record
        found = {row[3]: record(*row[3:]) for row in rows if row[3] is not None}
        return Page([found[name] for name in names if name in found], revision, None)

    def _time(self) -> int | None:
        """The parameter `clock` of the statements."""
        return None if self._clock is None else self._clock()


def sendable(text: str) -> str:
    """Replace U+0000, which PostgreSQL does not accept, in a prefix or in a position between names.

    No name contains a control character, so U+0001 sorts the same among the names.
    """
    return text.replace("\0", "\1")
