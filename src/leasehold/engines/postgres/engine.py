"""The engine on PostgreSQL: several servers may use one database at once."""

from collections.abc import Callable, Sequence
from contextlib import suppress

import asyncpg

from leasehold.engines.base import Clock, MakeIncarnation, new_incarnation
from leasehold.engines.postgres import head_statements, namespaces
from leasehold.engines.postgres.database import Database
from leasehold.engines.postgres.links import Connection
from leasehold.engines.postgres.space import PostgresSpace
from leasehold.errors import ServiceError, no_such_namespace
from leasehold.model import AnyKind, Namespace, QuotaChange
from leasehold.namespaces import DEFAULT_NAMESPACE


class PostgresEngine:
    """Spaces in the database at `url`, whose clock counts. The other arguments are for tests."""

    name = "postgres"
    shared = True
    durable = True

    def __init__(
        self, url: str, *, clock: Clock | None = None, make_incarnation: MakeIncarnation = new_incarnation
    ) -> None:
        self._database = Database(url, clock=clock, make_incarnation=make_incarnation)
        self._spaces: dict[str, PostgresSpace] = {}
        """Those that were asked for, until they are closed."""
        self._revisions: dict[str, int] = {}
        """The largest known revisions of the spaces that were closed. The database may go back to a time when there was
        no such namespace; if it is created again then, it continues after this revision."""
        self._tell_deleted: list[Callable[[str], None]] = []

    async def open(self) -> None:
        """See `Engine.open`."""
        await self._database.hold()

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._database.release()

    def space(self, namespace: str = DEFAULT_NAMESPACE) -> PostgresSpace:
        """See `Engine.space`. Whether there is such a namespace, only `Space.open` finds out."""
        space = self._spaces.get(namespace)
        if space is None:
            known_revision = self._revisions.get(namespace, 0)
            space = PostgresSpace(self._database, namespace, self._ended, self._deleted, known_revision)
            self._spaces[namespace] = space
        return space

    def _ended(self, space: PostgresSpace) -> None:
        """Forget a space that was closed or could not be opened. That of `default` can be opened again."""
        namespace = space.namespace
        if namespace == DEFAULT_NAMESPACE:
            return
        if space.revision > self._revisions.get(namespace, 0):
            self._revisions[namespace] = space.revision
        if self._spaces.get(namespace) is space:
            del self._spaces[namespace]

    def _deleted(self, space: PostgresSpace) -> None:
        """Handle the news that another server has deleted a namespace."""
        self._ended(space)
        for deleted in self._tell_deleted:
            deleted(space.namespace)

    def subscribe(self, deleted: Callable[[str], None]) -> None:
        """See `Engine.subscribe`."""
        self._tell_deleted.append(deleted)

    # Namespaces -----------------------------------------------------------------------------------------------

    async def namespaces(self, after: str | None, limit: int) -> Sequence[Namespace]:
        """See `Engine.namespaces`."""
        rows = await self._database.ask(lambda connection: namespaces.listed(connection, after or "", limit))
        found = [await self._described(row) for row in rows]
        return [namespace for namespace in found if namespace is not None]

    async def namespace(self, name: str) -> Namespace:
        """See `Engine.namespace`."""
        found = await self._find(name)
        if found is None:
            raise no_such_namespace()
        return found

    async def _find(self, name: str) -> Namespace | None:
        row = await self._database.ask(lambda connection: namespaces.found(connection, name))
        return None if row is None else await self._described(row)

    async def _described(self, row: asyncpg.Record) -> Namespace | None:
        """The description in a row. None: the namespace is gone."""
        known = namespaces.described(row)
        if known is not None:
            return known
        counted = await self._database.counting.count(row["namespace"])
        return None if counted is None else namespaces.described(row, counted)

    async def create(self, name: str, change: QuotaChange) -> tuple[Namespace, bool]:
        """See `Engine.create`."""
        if isinstance(change.max_entries, int) or isinstance(change.max_bytes, int):
            await self._find(name)  # counts it; else the next commit would count it, and all others would wait
        database, now = self._database, await self._time()
        incarnation = database.make_incarnation()

        async def work(connection: Connection) -> bool | None:
            return await namespaces.create(connection, name, change, incarnation=incarnation, now=now)

        while (is_new := await database.ask(work)) is None:
            await database.cleaner.empty(name)
        return await self.namespace(name), is_new

    async def delete(self, name: str) -> int:
        """See `Engine.delete`."""
        deleting = namespaces.Deleting(name, now=await self._time())
        revision = await self._database.ask(deleting.attempt)
        if revision is None:
            raise no_such_namespace()
        space = self._spaces.get(name)
        if space is not None:
            space.mark_deleted()
            self._ended(space)
        with suppress(ServiceError):  # it is deleted; whoever is the cleaner later removes what is left
            await self._database.cleaner.empty(name)
        return revision

    async def _time(self) -> int:
        now = self._database.time()
        if now is None:
            now = await self._database.ask(lambda connection: connection.fetchval(head_statements.CLOCK))
        assert isinstance(now, int)
        return now

    # What all spaces share ------------------------------------------------------------------------------------

    @property
    def fault(self) -> ServiceError | None:
        """See `Engine.fault`."""
        return self._database.fault.error

    async def recover(self) -> None:
        """See `Engine.recover`."""
        await self._database.recover()

    async def expired(self, limit: int) -> Sequence[tuple[str, AnyKind, str]]:
        """See `Engine.expired`."""
        return await self._database.cleaner.expired(limit)

    async def surplus(self, kind: AnyKind, most: int, most_bytes: int, limit: int) -> Sequence[tuple[str, str]]:
        """See `Engine.surplus`. In the spaces that are open."""
        found: list[tuple[str, str]] = []
        for namespace, space in list(self._spaces.items()):
            if space.is_open:
                names = await space.surplus(kind, most, most_bytes, limit)
                found += [(namespace, name) for name in names]
        return found
