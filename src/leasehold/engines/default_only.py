"""Engines that have one namespace only, which has no quota."""

from collections.abc import Sequence
from typing import NoReturn

from leasehold.errors import ServiceError, no_such_namespace
from leasehold.model import Namespace, QuotaChange
from leasehold.namespaces import DEFAULT_NAMESPACE


class DefaultOnly:
    """The base class of such engines."""

    async def open(self) -> None:
        """The only space opens what it needs."""

    async def close(self) -> None:
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


def _refuse() -> NoReturn:
    raise ServiceError("not_implemented", "this store has the namespace default only, without a quota")
