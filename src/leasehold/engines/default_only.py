"""Engines that have one namespace only, which has no quota."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from leasehold.errors import ServiceError, no_such_namespace
from leasehold.model import AnyKind, Namespace, QuotaChange
from leasehold.namespaces import DEFAULT_NAMESPACE


class OnlySpace(Protocol):
    """What the engine needs of its space; see the methods of `Engine` with the same names."""

    @property
    def fault(self) -> ServiceError | None: ...
    async def recover(self) -> None: ...
    async def expired(self, limit: int) -> Sequence[tuple[AnyKind, str]]: ...
    async def surplus(self, kind: AnyKind, most: int, most_bytes: int, limit: int) -> Sequence[str]: ...


class DefaultOnly(ABC):
    """The base class of such engines."""

    @abstractmethod
    def space(self, namespace: str = DEFAULT_NAMESPACE) -> OnlySpace:
        """See `Engine.space`."""

    async def open(self) -> None:  # noqa: B027 - nothing to do
        """The only space opens what it needs."""

    async def close(self) -> None:  # noqa: B027 - nothing to do
        """See `open`."""

    async def namespaces(self, after: str | None, limit: int) -> Sequence[Namespace]:  # noqa: ARG002
        """Raises `not_implemented`."""
        _refuse()

    async def namespace(self, name: str) -> Namespace:
        """Raises `not_implemented`, or `no_such_namespace`."""
        if name != DEFAULT_NAMESPACE:
            raise no_such_namespace()
        _refuse()

    async def create(self, name: str, change: QuotaChange) -> tuple[Namespace, bool]:  # noqa: ARG002
        """Raises `not_implemented`."""
        _refuse()

    async def delete(self, name: str) -> int:  # noqa: ARG002
        """Raises `no_such_namespace`."""
        raise no_such_namespace()

    def subscribe(self, deleted: Callable[[str], None]) -> None:  # noqa: B027 - nothing to do
        """No namespace is ever deleted."""

    @property
    def fault(self) -> ServiceError | None:
        """See `Engine.fault`."""
        return self.space().fault

    async def recover(self) -> None:
        """See `Engine.recover`."""
        await self.space().recover()

    async def expired(self, limit: int) -> Sequence[tuple[str, AnyKind, str]]:
        """See `Engine.expired`."""
        return [(DEFAULT_NAMESPACE, *each) for each in await self.space().expired(limit)]

    async def surplus(self, kind: AnyKind, most: int, most_bytes: int, limit: int) -> Sequence[tuple[str, str]]:
        """See `Engine.surplus`."""
        return [(DEFAULT_NAMESPACE, name) for name in await self.space().surplus(kind, most, most_bytes, limit)]


def _refuse() -> NoReturn:
    raise ServiceError("not_implemented", "this store has the namespace default only, without a quota")
