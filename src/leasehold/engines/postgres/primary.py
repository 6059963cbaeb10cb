"""Which database server is the primary, as the connections of this server have found out.

A failover promotes a standby. The former primary may still be there: it was frozen and continues, or only the network
between the two had failed. It takes connections and answers queries, but what it answers is old.

Each promotion begins a new timeline of the database system, with a larger number than all before. Each new connection
asks for the timeline before it is used:

- If it is larger than that of the other connections, there is a new primary. All other connections end at once.
- If it is smaller, this server is a former primary. The connection ends, and is not used.

So once this server has used a primary, no answer comes from a former one.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec
import structlog

from leasehold.engines.postgres.array_types import ConnectionWithArrays
from leasehold.engines.postgres.parameters import Host

log = structlog.get_logger(__name__)


class Connection(ConnectionWithArrays):
    """A session with a server."""

    host: Host
    """Where it was found."""
    is_silent = False
    """It was ended because an answer took too long."""
    is_of_former = False
    """It was ended because there is a new primary."""


class Server(msgspec.Struct, frozen=True):
    """A primary, by its database system and timeline. A standby that is promoted becomes another one."""

    system: int
    timeline: int


# Not `pg_control_checkpoint`, whose timeline is the former one until the first checkpoint after a promotion.
_IDENTIFY: Final = """
    SELECT system_identifier, ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint
    FROM pg_control_system() WHERE NOT pg_is_in_recovery()
"""


async def identify(connection: Connection) -> Server | None:
    """Ask a server which primary it is. None if it is a standby, or does not say so. Raises one of FAILURES."""
    try:
        row = await connection.fetchrow(_IDENTIFY)
    except asyncpg.PostgresError as failure:
        if connection.is_closed():
            raise
        log.info("the database does not say its timeline", sqlstate=failure.sqlstate)
        return None
    return None if row is None else Server(*row)


class Primaries:
    """The primaries that were found, and the connections to the present one."""

    def __init__(self) -> None:
        self._present: Server | None = None
        self._timelines: dict[int, int] = {}
        """The largest one of each database system."""
        self._reported: set[Server] = set()
        """Former primaries that were reported since the last change."""
        self._connections: Sequence[Connection] = ()

    def add(self, connection: Connection, server: Server | None) -> None:
        """Note a new connection, before it is used. `server`: its answer to `identify`.

        If it is of a new primary, all other connections end. If it is of a former primary, it ends itself, and
        TargetServerAttributeNotMatched is raised, which is one of FAILURES.
        """
        if server is not None:
            if server.timeline < self._timelines.get(server.system, 0):
                connection.terminate()
                self._report_former(server)
                raise asyncpg.TargetServerAttributeNotMatched("the host is a former primary")
            if server != self._present:
                self._change_to(server)
        self._connections = [*(each for each in self._connections if not each.is_closed()), connection]

    @property
    def are_known(self) -> bool:
        """Whether any server has said its timeline."""
        return self._present is not None

    def is_new(self, server: Server | None) -> bool:
        """Whether a server is a new primary of the present database system. If it is, all connections end."""
        present = self._present
        if server is None or present is None or server.system != present.system or server.timeline <= present.timeline:
            return False
        self._change_to(server)
        return True

    def _report_former(self, server: Server) -> None:
        if server not in self._reported:
            self._reported.add(server)
            newest = self._timelines[server.system]
            log.error(
                "a former primary is not used; if it was restored, stop all servers and run leasehold advance",
                timeline=server.timeline,
                newest=newest,
            )

    def _change_to(self, server: Server) -> None:
        if self._present is not None:
            log.warning("there is a new primary", timeline=server.timeline, before=self._present.timeline)
        for connection in self._connections:
            connection.is_of_former = True
            connection.terminate()
        self._connections = ()
        self._present = server
        self._timelines[server.system] = server.timeline
        self._reported.clear()
