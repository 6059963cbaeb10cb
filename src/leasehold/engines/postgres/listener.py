"""What other servers commit, heard by notification.

A notification names the schema, the namespace and a revision, or, of a commit that ended leases, the locks. One
connection listens.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from leasehold.completions import report
from leasehold.engines.base import Freed
from leasehold.engines.postgres import statements
from leasehold.engines.postgres.failures import FAILURES
from leasehold.engines.postgres.links import SILENCE_SECONDS, Connection, Link, watched
from leasehold.tasks import cancelled

POLL_SECONDS: Final = 5.0
"""How often the head is looked at, should a notification have been lost."""
RELISTEN_SECONDS: Final = 0.5
MAX_NOTICE_BYTES: Final = 7_000
"""PostgreSQL takes notifications of 8,000."""
OTHERS_SECONDS: Final = 10.0
_FREED: Final = "freed"


def freed_notice(locks: Sequence[str]) -> str:
    """What is told of locks that were set free; without their names, which means any, if these are too long."""
    notice = statements.SEPARATOR.join((_FREED, *locks))
    return notice if len(notice.encode()) <= MAX_NOTICE_BYTES else _FREED


class Listener:
    """`committed` hears of each revision, `unheard` of the head as it is now and then read, `freed` of locks.

    `prefix` is what notifications of our namespace begin with. `own_pid` is the database's process that wrote last
    for this server, whose notifications about locks are no news here.
    """

    def __init__(
        self,
        link: Link,
        namespace: str,
        prefix: str,
        *,
        committed: Callable[[int], None],
        unheard: Callable[[int, str | None], None],
        freed: Freed,
    ) -> None:
        self._link = link
        self._namespace = namespace
        self._prefix = prefix
        self._committed = committed
        self._unheard = unheard
        self._freed = freed
        self.own_pid = 0
        self._heard_others_at = -math.inf

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def stop(self) -> None:
        """Hear no more. The link is closed by its owner."""
        await cancelled(self._task)

    @property
    def hears_others(self) -> bool:
        """Whether other servers have committed something lately."""
        return asyncio.get_running_loop().time() - self._heard_others_at < OTHERS_SECONDS

    async def _listen(self) -> None:
        lost = asyncio.Event()
        while True:
            try:
                connection = await self._link.connected()
                lost.clear()
                connection.add_termination_listener(lambda _: lost.set())
                with watched(connection, SILENCE_SECONDS):
                    await connection.add_listener(statements.CHANNEL, self._hear)
                # What was told while nobody listened is lost, and the head does not show it: commits of our own move
                # it on, too.
                self._freed(None)
                await self._poll(connection, lost)
            except FAILURES:
                self._link.drop()
            except Exception as failure:  # noqa: BLE001 - what others commit must go on being heard
                report("listening begins anew after a fault", failure)
                self._link.drop()
            await asyncio.sleep(RELISTEN_SECONDS)

    async def _poll(self, connection: Connection, lost: asyncio.Event) -> None:
        """Look at the head at once and every POLL_SECONDS, until the connection is lost."""
        while not lost.is_set():
            with watched(connection, SILENCE_SECONDS):
                head = await connection.fetchrow(statements.HEAD, self._namespace)
            if head is not None:
                self._unheard(*head)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await lost.wait()

    def _hear(self, _connection: object, process: int, _channel: str, payload: object) -> None:
        if not isinstance(payload, str) or not payload.startswith(self._prefix):
            return
        if process != self.own_pid:
            self._heard_others_at = asyncio.get_running_loop().time()
        notice, *locks = payload.removeprefix(self._prefix).split(statements.SEPARATOR)
        if notice.isdecimal():
            self._committed(int(notice))
        elif notice == _FREED and process != self.own_pid:
            self._freed(locks or None)
