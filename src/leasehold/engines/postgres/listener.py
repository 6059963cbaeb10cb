"""Receives the notifications of commits, so that this server knows what other servers commit.

A notification names the schema, the namespace, a revision and the kinds that changed. One connection listens for all
spaces, and one query reads all their heads.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec

from leasehold.completions import report
from leasehold.engines.postgres import head_statements, record_statements
from leasehold.engines.postgres.failures import FAILURES
from leasehold.engines.postgres.links import CLOSE_SECONDS, SILENCE_SECONDS, Connection, Link, time_limit
from leasehold.engines.postgres.namespace_statements import DELETED
from leasehold.engines.postgres.notifications import Notifications, texts
from leasehold.model import KINDS, AnyKind
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.tasks import cancel_and_wait

POLL_SECONDS: Final = 0.8
"""The time between two reads of the heads. A read finds commits whose notification was lost, or never sent: Citus does
not send notifications from one node to another, and poolers drop them. Then a commit is known after a second."""
RELISTEN_SECONDS: Final = 0.5
OTHERS_SECONDS: Final = 10.0
_BY_NAME: Final = {kind.name: kind for kind in KINDS}


class SpaceEvents(msgspec.Struct, frozen=True):
    """What an open space is told."""

    is_own_process: Callable[[int], bool]
    """Whether a process of the database wrote the last batch that this server committed in the space."""
    committed: Callable[[int, Sequence[AnyKind]], None]
    """`committed(revision, kinds)`, for each notification; `kinds` is empty if this server made the commit."""
    looked: Callable[[int, str | None, bool], None]
    """`looked(revision, incarnation, may_have_missed)`, after each read of the head; `may_have_missed` says that
    notifications may have been lost since the read before."""
    recovered: Callable[[], None]
    """The database could not be written for some time, and can be again."""
    deleted: Callable[[str], None]
    """The namespace was deleted while it had this incarnation."""


class Listener:
    """Listens on `link` until it is stopped. `spaces`: the open spaces by namespace, which may change."""

    def __init__(self, link: Link, schema_name: str, spaces: Mapping[str, SpaceEvents]) -> None:
        self._link = link
        self._prefix = f"{schema_name}/"
        self._spaces = spaces
        self._heard_others_at: dict[str, float] = {}
        """When another server committed last, by namespace and by the loop's clock."""
        self._woken = asyncio.Event()
        """The connection is lost, or a notification is due."""
        self._process = 0
        """The id of the database process of the connection."""
        self.notifications = Notifications(self._woken.set)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def stop(self) -> None:
        """Stop listening, and send the last notifications. The owner of the link closes it."""
        await cancel_and_wait(self._task)
        if not self.notifications.untold():
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._tell(await self._link.connected())
        except FAILURES:
            self._link.drop()  # the other servers read the heads
        except Exception as failure:  # noqa: BLE001 - as above
            report("the last notifications could not be sent", failure)
            self._link.drop()

    def hears_others(self, namespace: str) -> bool:
        """Whether another server has committed in this namespace in the last OTHERS_SECONDS."""
        heard_at = self._heard_others_at.get(namespace, -math.inf)
        return asyncio.get_running_loop().time() - heard_at < OTHERS_SECONDS

    def note_others(self, namespace: str) -> None:
        """Another server has committed in this namespace."""
        self._heard_others_at[namespace] = asyncio.get_running_loop().time()

    async def _listen(self) -> None:
        lost = asyncio.Event()
        while True:
            try:
                connection = await self._link.connected()
                lost.clear()
                connection.add_termination_listener(partial(self._end, lost))
                self._process = connection.get_server_pid()
                with time_limit(connection, SILENCE_SECONDS):
                    await connection.add_listener(head_statements.CHANNEL, self._hear)
                await self._poll(connection, lost)
            except FAILURES:
                self._link.drop()
            except Exception as failure:  # noqa: BLE001 - it must listen again, because nothing else starts it
                report("listening begins anew after a fault", failure)
                self._link.drop()
            await asyncio.sleep(RELISTEN_SECONDS)

    def _end(self, lost: asyncio.Event, _connection: object) -> None:
        lost.set()
        self._woken.set()

    async def _poll(self, connection: Connection, lost: asyncio.Event) -> None:
        """Read the heads at once and every POLL_SECONDS, until the connection is lost."""
        # Notifications sent while this server did not listen are lost. The head may not show that, because commits of
        # this server advance it, too.
        may_have_missed = True
        is_user = False
        while not lost.is_set():
            with time_limit(connection, SILENCE_SECONDS):
                # The session of the start holds the lock, too, but it may have been replaced since.
                is_user = is_user or await connection.fetchval(head_statements.USE, DEFAULT_NAMESPACE)
                heads = await connection.fetch(head_statements.HEADS, list(self._spaces))
            for namespace, revision, incarnation, is_deleted in heads:
                events = self._spaces.get(namespace)
                if events is not None and is_deleted:
                    events.deleted(incarnation)
                elif events is not None:
                    events.looked(revision, incarnation, may_have_missed)
            may_have_missed = False
            await self._tell_until(asyncio.get_running_loop().time() + POLL_SECONDS, connection, lost)

    async def _tell_until(self, end: float, connection: Connection, lost: asyncio.Event) -> None:
        """Send notifications when they are due, until `end` by the loop's clock, or until the connection is lost."""
        while not lost.is_set() and asyncio.get_running_loop().time() < end:
            self._woken.clear()
            if self.notifications.is_due:
                await self._tell(connection)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await self._woken.wait()

    async def _tell(self, connection: Connection) -> None:
        untold = self.notifications.untold()
        with time_limit(connection, SILENCE_SECONDS):
            await connection.execute(head_statements.TELL_COMMITTED, texts(untold))
        self.notifications.sent(untold)

    def _hear(self, _connection: object, process: int, _channel: str, payload: object) -> None:
        if not isinstance(payload, str) or not payload.startswith(self._prefix):
            return
        namespace, _, changed = payload.removeprefix(self._prefix).partition("/")
        events = self._spaces.get(namespace)
        if events is None:
            return
        if changed.startswith(DELETED):
            events.deleted(changed.removeprefix(f"{DELETED}/"))
            return
        is_own = process == self._process or events.is_own_process(process)
        if not is_own:
            self.note_others(namespace)
        revision, *names = changed.split(record_statements.SEPARATOR)
        # A server of version 0.1 names no kinds, so any kind may have changed. It also sends notifications without a
        # revision, which contain nothing more.
        if revision.isdecimal():
            kinds = [_BY_NAME[name] for name in names if name in _BY_NAME] if names else KINDS
            self.notifications.heard(namespace, int(revision), kinds)
            events.committed(int(revision), () if is_own else kinds)
