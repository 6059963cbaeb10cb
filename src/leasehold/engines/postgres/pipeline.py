"""Statements on one connection that are sent together, so that they need one round trip.

asyncpg has no function for this: it waits for the answer to each statement. A pipeline therefore writes the messages of
all statements but the last itself (`messages`), directly before asyncpg writes those of the last one. Nothing else runs
in between. Only asyncpg's messages end with a Sync, so PostgreSQL ends the answers to all statements with one
ReadyForQuery, and asyncpg reads them as the answer to its statement.

- PostgreSQL executes the statements in their order. If one fails, it skips all others, also the last one.
- Only the last statement may return rows, because asyncpg decodes all rows as rows of this statement.
- The status of the answer is that of the last statement.

`tests/engines/test_postgres_pipeline.py` checks that asyncpg works like this. A pipeline belongs to one caller at a
time. After any exception, the caller must drop the connection.
"""

from itertools import count
from typing import Final

import asyncpg
import msgspec

from leasehold.engines.postgres import messages
from leasehold.engines.postgres.links import Connection

_numbers: Final = count(1)
"""For the names of prepared statements: no two in this process are equal, because a pooler may give several
connections the same session, one after another."""


class Prepared(msgspec.Struct, frozen=True):
    """A prepared statement of the connection."""

    statement: "asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]"
    name: str
    fields: tuple[messages.Field, ...]
    """Encodes the parameters."""


class Pipeline:
    """The statements that are to be sent on `connection` next. Each is prepared when it is first used."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._prepared: dict[str, Prepared] = {}
        self._unsent: list[bytes] = []

    def process(self) -> int:
        """The id of the process of the database.

        Raises InterfaceError if the connection is closed: a time limit may pass when an answer has just come.
        """
        if self.connection.is_closed():
            raise asyncpg.InterfaceError("the connection is closed")
        return self.connection.get_server_pid()

    async def add(self, statement: str, *arguments: object) -> None:
        """Send this statement together with the next one that is fetched. It must return no rows."""
        prepared = self._prepared.get(statement) or await self._prepare(statement)
        self._unsent += messages.bind(prepared.name, messages.parameters(prepared.fields, arguments)), messages.EXECUTE

    async def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Send everything that was added, and this statement. Returns its rows."""
        prepared = self._prepared.get(statement) or await self._prepare(statement)
        self._send()
        return await prepared.statement.fetch(*arguments)

    async def execute(self, statement: str) -> str | None:
        """Send everything that was added, and this statement. Returns the status of its answer."""
        prepared = self._prepared.get(statement) or await self._prepare(statement)
        self._send()
        await prepared.statement.fetch()
        return prepared.statement.get_statusmsg()

    def _send(self) -> None:
        """Write everything that was added. asyncpg must write the end before the event loop does anything else."""
        if self._unsent:
            if self.connection.is_closed():
                raise asyncpg.InterfaceError("the connection is closed")
            data = b"".join(self._unsent)
            self._unsent.clear()
            self.connection._transport.write(data)  # type: ignore[attr-defined]  # noqa: SLF001 - see the top

    async def _prepare(self, statement: str) -> Prepared:
        # The name begins with the first word of the statement, so that it can be recognised in what is sent.
        name = f"{statement.split(maxsplit=1)[0].lower()}_{next(_numbers)}"
        made = await self.connection.prepare(statement, name=name)
        fields = tuple(messages.FIELDS[parameter.oid] for parameter in made.get_parameters())
        prepared = self._prepared[statement] = Prepared(made, name, fields)
        return prepared
