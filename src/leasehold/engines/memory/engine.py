"""The engine `memory:`."""

from collections.abc import Callable, Sequence

from leasehold.engines.base import Clock, SteadyClock
from leasehold.engines.memory.space import MemorySpace, expired_in, surplus_in
from leasehold.errors import ServiceError, no_such_namespace
from leasehold.model import AnyKind, Namespace, QuotaChange
from leasehold.namespaces import DEFAULT_NAMESPACE


class MemoryEngine:
    """Spaces that last as long as the process."""

    name = "memory"
    shared = False
    durable = False

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or SteadyClock()
        self._spaces: dict[str, MemorySpace] = {}
        self._deleted: dict[str, int] = {}
        """The revisions of the deletions of namespaces that were not created again."""

    def space(self, namespace: str = DEFAULT_NAMESPACE) -> MemorySpace:
        """See `Engine.space`."""
        space = self._spaces.get(namespace)
        if space is None:
            if namespace != DEFAULT_NAMESPACE:
                raise no_such_namespace()
            space = self._spaces[namespace] = MemorySpace(clock=self._clock)
        return space

    async def open(self) -> None:
        """See `Engine.open`."""

    async def close(self) -> None:
        """See `Engine.close`."""

    async def namespaces(self, after: str | None, limit: int) -> Sequence[Namespace]:
        """See `Engine.namespaces`."""
        self.space()
        names = sorted(name for name in self._spaces if after is None or name > after)
        return [_described(name, self._spaces[name]) for name in names[:limit]]

    async def namespace(self, name: str) -> Namespace:
        """See `Engine.namespace`."""
        return _described(name, self.space(name))

    async def create(self, name: str, change: QuotaChange) -> tuple[Namespace, bool]:
        """See `Engine.create`."""
        is_new = name not in self._spaces and name != DEFAULT_NAMESPACE
        if is_new:
            self._spaces[name] = MemorySpace(clock=self._clock, revision=self._deleted.pop(name, 0))
        space = self.space(name)
        space.quota = change.applied_to(space.quota)
        return _described(name, space), is_new

    async def delete(self, name: str) -> int:
        """See `Engine.delete`."""
        space = self.space(name)
        space.delete()
        del self._spaces[name]
        self._deleted[name] = space.revision + 1
        return self._deleted[name]

    def subscribe(self, deleted: Callable[[str], None]) -> None:
        """See `Engine.subscribe`. There is one server only."""

    @property
    def fault(self) -> ServiceError | None:
        """See `Engine.fault`."""
        return None

    async def recover(self) -> None:
        """See `Engine.recover`."""

    async def expired(self, limit: int) -> Sequence[tuple[str, AnyKind, str]]:
        """See `Engine.expired`."""
        return await expired_in(self._spaces, limit)

    async def surplus(self, kind: AnyKind, most: int, most_bytes: int, limit: int) -> Sequence[tuple[str, str]]:
        """See `Engine.surplus`."""
        return await surplus_in(self._spaces, kind, most, most_bytes, limit)


def _described(name: str, space: MemorySpace) -> Namespace:
    return Namespace(name, space.revision, space.usage, space.quota, space.created_at)
