"""Two real PostgreSQL servers: a primary, and a standby that its commits wait for unless it is asynchronous."""

import asyncio
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

import asyncpg
from databases import STANDBY, Database, PostgresServer, run, until
from running import ANSWER_SECONDS, free_port

_STREAMS: Final = "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = '{}' AND state = 'streaming'"
_STREAMS_NOT: Final = "SELECT count(*) = 0 FROM pg_stat_replication"
_WAITING: Final = "pid, xact_start::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


class Pair:
    """A primary and its standby. The two roles always use the same two ports."""

    def __init__(self, *, is_synchronous: bool = True) -> None:
        self._is_synchronous = is_synchronous
        self._ends = ExitStack()
        self._ports = [self._ends.enter_context(free_port()) for _ in range(2)]
        self.primary = PostgresServer(port=self._ports[0])
        self.standby: PostgresServer | None = None
        self._former: PostgresServer | None = None
        """A former primary that was only frozen."""

    @property
    def hosts(self) -> str:
        """The hosts part of a URL."""
        return ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def __enter__(self) -> Self:
        self.primary.start()
        self.add_standby()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove_former()
        for server in (self.primary, self.standby):
            if server is not None:
                server.close()
        self._ends.close()

    def add_standby(self) -> None:
        """Make a standby from a base backup of the primary. From then on commits wait for it if it is synchronous."""
        [port] = (port for port in self._ports if port != self.primary.port)
        self.standby = PostgresServer(port=port, standby_of=self.primary).start()
        if self._is_synchronous:
            _set(self.primary, "synchronous_standby_names", STANDBY)
        state = "sync" if self._is_synchronous else "async"
        run(until(_database(self.primary), _STREAMS.format(state)))

    def freeze_and_promote(self) -> None:
        """Promote the standby while the primary does not answer."""
        assert self.standby is not None
        self.primary.freeze()
        self._former, self.primary, self.standby = self.primary, self.standby, None
        assert _is_true(self.primary, "SELECT pg_promote()")

    def thaw_former(self) -> None:
        """Let the frozen primary continue. It does not know that it is not the primary any more."""
        assert self._former is not None
        self._former.thaw()

    def remove_former(self) -> None:
        """Remove the primary that was frozen for good, if there is one."""
        if self._former is not None:
            self._former.thaw()  # processes that are frozen do not notice the end of the others
            self._former.kill()
            self._former.close()
            self._former = None

    def cut_off(self) -> None:
        """Cut the standby off as if the network had failed. Commits wait until it is promoted."""
        assert self.standby is not None
        _set(self.standby, "primary_conninfo", "")
        run(until(_database(self.primary), _STREAMS_NOT))

    def waiting(self, *, but_for: tuple[int, str] | None = None) -> tuple[int, str]:
        """Wait until a commit waits for the standby. Returns its process and when it began. Ignores the process
        `but_for`."""
        return run(_waiting(self.primary.url, but_for))

    def promote(self) -> None:
        """Remove the primary for good. The standby takes its place."""
        assert self.standby is not None
        self.primary.kill()
        self.primary.close()
        self.primary, self.standby = self.standby, None
        assert _is_true(self.primary, "SELECT pg_promote()")


def _database(server: PostgresServer) -> Database:
    return Database(server.url, "public")


async def _waiting(url: str, but_for: tuple[int, str] | None) -> tuple[int, str]:
    connection = await asyncpg.connect(url, timeout=ANSWER_SECONDS)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                for row in await connection.fetch(f"SELECT {_WAITING}"):
                    found = (row["pid"], row["xact_start"])
                    if found != but_for:
                        return found
                await asyncio.sleep(0.01)
    finally:
        await connection.close()


def _set(server: PostgresServer, name: str, value: str) -> None:
    _database(server).execute(f"ALTER SYSTEM SET {name} = '{value}'")
    _database(server).execute("SELECT pg_reload_conf()")


def _is_true(server: PostgresServer, question: str) -> bool:
    return _database(server).fetch(question)[0][0] is True
