"""The database as all spaces of this server use it: connections, listener, fault, and which server is the cleaner.

Connections: one that writes, one that listens, LISTS, and READERS. Their number does not depend on the number of
spaces. They are open while the engine is open, or one of its spaces. A backup, or a count of a namespace, has one more.

All state belongs to the event loop's thread.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar
from uuid import uuid4

from leasehold.completions import report
from leasehold.engines.base import Clock, MakeIncarnation
from leasehold.engines.postgres import head_statements, schema
from leasehold.engines.postgres.cleaner import Cleaner
from leasehold.engines.postgres.counting import Counting
from leasehold.engines.postgres.durability import check_durability
from leasehold.engines.postgres.empty_commit import commit_nothing
from leasehold.engines.postgres.failures import FAILURES, Reports, as_start_error
from leasehold.engines.postgres.fault import Fault
from leasehold.engines.postgres.links import CLOSE_SECONDS, Address, Connection, Link
from leasehold.engines.postgres.listener import Listener, SpaceEvents
from leasehold.engines.postgres.pool import Pool
from leasehold.engines.postgres.reads import Readers
from leasehold.engines.postgres.writer import Writer
from leasehold.errors import ServiceError, unavailable
from leasehold.namespaces import DEFAULT_NAMESPACE
from leasehold.tasks import cancel_and_wait

T = TypeVar("T")

READERS: Final = 2
LISTS: Final = 2
LOOK_SECONDS: Final = 5.0
"""The time between two looks for a new primary at the other hosts. Without them, a server that only reads would stay at
a former primary as long as that answers."""


class Database:
    """The database at `url`, whose clock counts unless a `clock` is given."""

    def __init__(self, url: str, *, clock: Clock | None, make_incarnation: MakeIncarnation) -> None:
        self.url = url
        self.clock = clock
        self.make_incarnation = make_incarnation
        self.reports = Reports()
        self.fault = Fault(self.reports, self._commit_nothing, self._recovered)
        self.probe_id = uuid4()
        """The writer of empty commits."""
        self._users: dict[str, SpaceEvents] = {}
        """The open spaces, by namespace."""
        self._looking: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._is_open = False
        self._is_held = False
        """The engine is open."""

    async def hold(self) -> None:
        """Open the connections, and keep them open until `release`. Raises the errors of `Engine.open`."""
        async with self._opening:
            if not self._is_open:
                await self._open()
            self._is_held = True

    async def release(self) -> None:
        """Close the connections, unless a space uses them."""
        self._is_held = False
        if not self._users:
            await self._begin_to_close()
            await self.leave()

    async def join(self, namespace: str, events: SpaceEvents) -> None:
        """Open the connections for a space, unless they are open. Raises the errors of `Space.open`."""
        async with self._opening:
            if not self._is_open:
                await self._open()
            elif not self._users:
                self._begin_again()
            self._users[namespace] = events

    async def _open(self) -> None:
        try:
            address = self.address = Address(self.url)
        except OSError as failure:
            raise as_start_error(failure) from failure
        writing = Link(address)
        try:
            schema_name = await self._prepare(await writing.connected())
        except (*FAILURES, ValueError) as failure:
            writing.drop()
            raise as_start_error(failure) from failure
        except BaseException:
            writing.drop()
            raise
        self.fault.open()
        lists = [Link(address) for _ in range(LISTS)]
        readers = [Link(address) for _ in range(READERS)]
        listening = Link(address)
        self._links = [writing, listening, *lists, *readers]
        self.writer = Writer(writing)
        self.pool = Pool(lists, self.fault)
        self.cleaner = Cleaner(self.pool, self.clock)
        self.counting = Counting(address)
        self.readers = Readers(readers, self.clock, self.fault)
        self.listener = Listener(listening, schema_name, self._users)
        self._is_open = True
        self.readers.start()
        self.listener.start()
        if address.has_several_hosts:
            self._looking = asyncio.get_running_loop().create_task(self._look_around(address))

    async def _look_around(self, address: Address) -> None:
        # Workers start together. If they all looked together, a standby might run out of connections.
        seconds = secrets.SystemRandom().uniform(0.0, LOOK_SECONDS)
        while True:
            await asyncio.sleep(seconds)
            seconds = LOOK_SECONDS
            try:
                await address.look_around()
            except Exception as failure:  # noqa: BLE001 - it must look again, because nothing else starts it
                report("looking for a new primary goes on after a fault", failure)

    async def _prepare(self, connection: Connection) -> str:
        """Create the tables if they are missing. Returns the name of the schema."""
        await schema.deploy(connection, schema.load_scripts(), now=time.time_ns() // 1000)
        if not await connection.fetchval(head_statements.USE, DEFAULT_NAMESPACE):
            raise unavailable("the store cannot be opened: `leasehold move` is moving it")
        await schema.ensure_head(connection, DEFAULT_NAMESPACE, self.make_incarnation)
        schema_name = await connection.fetchval(head_statements.SCHEMA_NAME)
        await check_durability(connection)
        assert isinstance(schema_name, str)
        return schema_name

    async def begin_to_leave(self, namespace: str, events: SpaceEvents) -> None:
        """The space takes no more requests. If it is the last one, no query is repeated from now on."""
        if self._users.get(namespace) is events:  # else the namespace was created again, and has another space
            del self._users[namespace]
        if not self._users:
            await self._begin_to_close()

    async def _begin_to_close(self) -> None:
        if not self._is_open:
            return
        for link in self._links:
            link.stop_retrying()
        with suppress(ServiceError, TimeoutError):  # if it fails, another server takes over some seconds later
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.cleaner.resign()
        if not self._users:
            self.fault.close()

    def _begin_again(self) -> None:
        for link in self._links:
            link.retry_again()
        self.fault.open()

    async def leave(self) -> None:
        """Close the connections if nobody uses them. A space calls it when it has nothing in progress."""
        async with self._opening:
            if not self._users and not self._is_held:
                await self._close()

    async def _close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        await asyncio.gather(*self.fault.attempts)
        if self._looking is not None:
            await cancel_and_wait(self._looking)
            self._looking = None
        await self.counting.close()
        await self.listener.stop()
        await self.readers.close()
        await asyncio.gather(*(link.close() for link in self._links))

    async def ask(self, query: Callable[[Connection], Awaitable[T]]) -> T:
        """Run the query of a list, or a rare query. Raises ServiceError."""
        if not self._is_open:
            raise unavailable("the store is closed")
        return await self.pool.ask(query)

    async def recover(self) -> None:
        """See `Engine.recover`."""
        if self.fault.error is not None and self._is_open:
            await self.fault.try_to_write()

    def time(self) -> int | None:
        """The parameter `clock` of the statements."""
        return None if self.clock is None else self.clock()

    async def _commit_nothing(self) -> None:
        async def work(connection: Connection) -> None:
            await commit_nothing(connection, DEFAULT_NAMESPACE, self.probe_id, self.time())

        await self.pool.ask(work, retry_seconds=0.0)

    def _recovered(self) -> None:
        for events in self._users.values():
            events.recovered()
