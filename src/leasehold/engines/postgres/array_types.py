"""The array types that come with PostgreSQL: asked for once in a process, and not once for each connection.

asyncpg knows only a few of them. When a statement on a new connection uses another one, it asks the database for its
shape. That takes 12 ms of processor time, more than everything else that a connection needs.
"""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import asyncpg

if TYPE_CHECKING:
    AnyConnection = asyncpg.Connection[asyncpg.Record]
else:
    AnyConnection = asyncpg.Connection  # it is generic only in the stubs

FIRST_OTHER_ID: Final = 10_000
"""PostgreSQL gives the ids below this by hand. They have the same meaning in each version and database."""

_shapes: Final[dict[frozenset[int], Any]] = {}
"""The answers, by the ids of the types that were asked for."""
_NO_QUERY: Final = SimpleNamespace(name="none")
"""What asyncpg takes for the statement that has asked. Its name says that no unnamed one was replaced."""


class ConnectionWithArrays(AnyConnection):
    """A connection that knows the array types for which an earlier one has asked."""

    async def _introspect_types(self, typeoids: Iterable[int], *rest: object) -> tuple[Any, Any]:
        """asyncpg calls this. Returns the shapes of types, and the statement that has asked for them."""
        ids = frozenset(typeoids)
        if ids in _shapes:
            return _shapes[ids], _NO_QUERY
        shapes, statement = await super()._introspect_types(typeoids, *rest)  # type: ignore[misc] # not in the stubs
        if max(ids) < FIRST_OTHER_ID:
            _shapes[ids] = shapes
        return shapes, statement
