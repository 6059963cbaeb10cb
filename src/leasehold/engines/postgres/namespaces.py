"""Creates, describes and deletes namespaces. Each function may be repeated after a failure.

The row of a namespace in `head` stays when the namespace is deleted, so that its revisions are never given out again.
A deletion first marks this row, under the lock that each batch takes. From then on no server commits to the namespace.
Then the other rows are removed in portions, because a transaction that removes a million rows takes long. Whoever
creates the namespace again first removes what is left, and so does the server that is the cleaner.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import asyncpg

from leasehold.engines.postgres import head_statements
from leasehold.engines.postgres import namespace_statements as statements
from leasehold.engines.postgres.links import Connection, collect_warnings
from leasehold.engines.state import Description
from leasehold.model import Namespace, Quota, QuotaChange, Usage
from leasehold.namespaces import DEFAULT_NAMESPACE

REMOVED_AT_ONCE: Final = 2_000
"""Rows of each table that one transaction of a deletion removes."""


class Counted(NamedTuple):
    """What a namespace held at a revision."""

    revision: int
    usage: Usage


async def listed(connection: Connection, after: str, limit: int) -> list[asyncpg.Record]:
    """The rows for `Engine.namespaces`, for `described`."""
    return await connection.fetch(statements.LIST, after, limit)


async def found(connection: Connection, name: str) -> asyncpg.Record | None:
    """The row of a namespace, for `described`. None: there is no such namespace."""
    row = await connection.fetchrow(statements.DESCRIBE, name)
    return None if row is None or row["deleted_at"] is not None else row


def described(row: asyncpg.Record, counted: Counted | None = None) -> Namespace | None:
    """The description in a row. `counted`: what was counted after the row was read. None: it must be counted."""
    if counted is None:
        if not row["is_counted"]:
            return None
        counted = Counted(row["revision"], Usage(row["entries"], row["bytes"]))
    quota = Quota(row["max_entries"], row["max_bytes"])
    return Namespace(row["namespace"], counted.revision, counted.usage, quota, row["created_at"])


def description_of(row: asyncpg.Record) -> Description:
    """What a row has beside the space of its namespace."""
    if row["deleted_at"] is not None:
        return Description(deleted_at_revision=row["revision"])
    quota = Quota(row["max_entries"], row["max_bytes"])
    if row["namespace"] == DEFAULT_NAMESPACE and quota == Quota():
        return Description()
    return Description(quota, row["created_at"])


async def descriptions(connection: Connection) -> dict[str, Description]:
    """All namespaces in the order of their names, deleted ones included."""
    rows = await connection.fetch(statements.ALL)
    return dict(sorted((row["namespace"], description_of(row)) for row in rows))


async def set_deleted(connection: Connection, name: str, *, now: int) -> None:
    """Mark a namespace without rows as deleted, within a transaction that holds its head. SET_USAGE must follow."""
    row = await connection.fetchrow(statements.DESCRIBE, name)
    assert row is not None
    if row["deleted_at"] is None:
        await connection.execute(statements.MARK_DELETED, name, now)
        await connection.execute(statements.TELL_DELETED, name, row["incarnation"])


async def set_description(connection: Connection, name: str, description: Description) -> None:
    """Let a namespace exist with this description, within a transaction that holds its head."""
    quota = description.quota
    created_at = description.created_at
    await connection.execute(statements.SET_DESCRIPTION, name, created_at, quota.max_entries, quota.max_bytes)


async def create(connection: Connection, name: str, change: QuotaChange, *, incarnation: str, now: int) -> bool | None:
    """Create a namespace or change its quota; see `Engine.create`. Returns whether it was created.

    None: it was deleted and still has rows; use `remove_some`. If the call is repeated, its `incarnation` shows whether
    the first one has created it.
    """
    async with _transaction(connection):
        await connection.execute(head_statements.ADD_HEAD, name)
        await connection.execute(head_statements.LOCK_HEAD, name)
        row = await connection.fetchrow(statements.DESCRIBE, name)
        assert row is not None
        if row["deleted_at"] is not None and not row["is_counted"]:
            return None
        is_new = row["deleted_at"] is not None or row["created_at"] is None
        if is_new:
            await connection.execute(statements.BEGIN, name, incarnation, now)
        quota = change.applied_to(Quota(row["max_entries"], row["max_bytes"]))
        await connection.execute(statements.SET_QUOTA, name, quota.max_entries, quota.max_bytes)
    return is_new or row["incarnation"] == incarnation


class Deleting:
    """Deletes a namespace. The answer of a COMMIT may be lost, so `attempt` may be repeated."""

    def __init__(self, name: str, *, now: int) -> None:
        self._name = name
        self._now = now
        self._begun: tuple[int, int] | None = None
        """When the namespace was created that an earlier attempt may have deleted, and the revision of the deletion."""

    async def attempt(self, connection: Connection) -> int | None:
        """Use `remove_some` then. Returns the revision of the deletion. None: there is no such namespace."""
        name = self._name
        async with _transaction(connection):
            await connection.execute(head_statements.LOCK_HEAD, name)
            row = await connection.fetchrow(statements.DESCRIBE, name)
            if self._begun is not None:
                created_at, revision = self._begun
                if row is None or row["created_at"] != created_at:
                    return revision  # it was deleted; what is there now was created since
                if row["deleted_at"] is not None:
                    return int(row["revision"])
            if row is None or row["deleted_at"] is not None:
                return None
            revision = int(row["revision"]) + 1
            self._begun = row["created_at"], revision
            await connection.execute(statements.MARK_DELETED, name, self._now)
            await connection.execute(statements.TELL_DELETED, name, row["incarnation"])
        return revision


async def remove_some(connection: Connection, name: str) -> bool:
    """Remove rows of a deleted namespace. Returns whether there may be more. Does nothing if it was created again."""
    async with connection.transaction():
        await connection.execute(head_statements.LOCK_HEAD, name)
        row = await connection.fetchrow(statements.DESCRIBE, name)
        if row is None or row["deleted_at"] is None or row["is_counted"]:
            return False
        answers = [await connection.execute(each, name, REMOVED_AT_ONCE) for each in statements.REMOVE_SOME]
        if any(answer != "DELETE 0" for answer in answers):
            return True
        await connection.execute(statements.SET_USAGE, name, 0, 0)
        return False


async def not_empty(connection: Connection) -> list[str]:
    """Some of the namespaces that were deleted and may still have rows."""
    return [row["namespace"] for row in await connection.fetch(statements.NOT_EMPTY)]


async def count(connection: Connection, name: str) -> Counted | None:
    """Count what a namespace holds, and note it unless an older server commits meanwhile. Other commits do not wait.

    None: there is no such namespace.
    """
    row = await connection.fetchrow(statements.COUNT, name)
    if row is None:
        return None
    revision, summed_entries, summed_bytes, entries, size = row
    await connection.execute(statements.ADD_TO_SUMS, name, revision, entries - summed_entries, size - summed_bytes)
    return Counted(revision, Usage(entries, size))


@asynccontextmanager
async def _transaction(connection: Connection) -> AsyncIterator[None]:
    """A transaction whose COMMIT must be answered without a warning, because callers are told that it is durable."""
    await connection.execute(head_statements.BEGIN)
    yield
    await connection.execute(head_statements.SHOW_WARNINGS)
    with collect_warnings(connection) as warnings:
        answer = await connection.execute(head_statements.COMMIT)
    if answer != "COMMIT" or warnings:
        raise asyncpg.InterfaceError("a COMMIT was not answered in good order")
