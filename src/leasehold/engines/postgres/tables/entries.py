"""The table of entries. A value that JSONB would change is also stored as text (`jsonb`)."""

from collections.abc import Sequence
from typing import Final

from leasehold.engines.postgres.differences import LARGE_DOCUMENT_BYTES, Difference, difference
from leasehold.engines.postgres.jsonb import is_changed_by_jsonb
from leasehold.engines.postgres.tables.table import Column, Document, Table
from leasehold.model import ENTRY, Entry
from leasehold.values import UNREADABLE, is_json


def record(
    key: str,
    data: bytes,
    revision: int,
    created_at: int,
    updated_at: int,
    expires_at: int | None,
    exact: str | None,
) -> Entry:
    """The entry of a row. Its value is UNREADABLE if another program wrote something that is not JSON."""
    if exact is not None:
        data = exact.encode()
        if not is_json(data):
            data = UNREADABLE
    return Entry(key, data, revision, created_at, updated_at, expires_at)


def values(entries: Sequence[Entry]) -> tuple[Sequence[object] | None, ...]:
    """See `Table.values`."""
    exact = [each.value.decode() if is_changed_by_jsonb(each.value) else None for each in entries]
    expires_at = [each.expires_at for each in entries]
    return (
        [each.key for each in entries],
        [each.value for each in entries],
        [each.revision for each in entries],
        [each.created_at for each in entries],
        [each.updated_at for each in entries],
        expires_at if any(expires_at) else None,
        exact if any(exact) else None,
    )


def part(stored: Sequence[object], before: Entry, after: Entry) -> Difference | None:
    """See `Document.part`. If the value is stored as text, the whole value is sent."""
    exact = stored[-1]
    if len(before.value) < LARGE_DOCUMENT_BYTES or exact is not None:
        return None
    found = difference(before.value, after.value)
    return None if found is None or (found.part is not None and is_changed_by_jsonb(found.part)) else found


TABLE: Final = Table(
    kind=ENTRY,
    name="data",
    columns=(
        Column("key", "text"),
        # JSONB writes numbers without exponents: 10 characters may become 300. So it is read only if there is no text.
        Column("data", "jsonb", read="CASE WHEN stored.exact IS NULL THEN stored.data END", is_large=True),
        Column("revision", "bigint"),
        Column("created_at", "timestamptz"),
        Column("updated_at", "timestamptz"),
        Column("expires_at", "timestamptz"),
        Column("exact", "text", is_large=True),
    ),
    record=record,
    values=values,
    document=Document("data", ("revision", "created_at", "updated_at", "expires_at"), part),
)
