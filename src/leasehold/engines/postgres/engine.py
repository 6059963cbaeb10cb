"""The engine on PostgreSQL: several servers may use one database at once."""

from leasehold.engines.base import Clock, MakeIncarnation, new_incarnation
from leasehold.engines.default_only import DefaultOnly
from leasehold.engines.postgres.database import Database
from leasehold.engines.postgres.space import PostgresSpace
from leasehold.namespaces import DEFAULT_NAMESPACE


class PostgresEngine(DefaultOnly):
    """Spaces in the database at `url`, whose clock counts. The other arguments are for tests."""

    name = "postgres"
    shared = True
    durable = True

    def __init__(
        self, url: str, *, clock: Clock | None = None, make_incarnation: MakeIncarnation = new_incarnation
    ) -> None:
        self._database = Database(url, clock=clock, make_incarnation=make_incarnation)
        self._spaces: dict[str, PostgresSpace] = {}

    def space(self, namespace: str = DEFAULT_NAMESPACE) -> PostgresSpace:
        """See `Engine.space`."""
        space = self._spaces.get(namespace)
        if space is None:
            space = self._spaces[namespace] = PostgresSpace(self._database, namespace)
        return space
