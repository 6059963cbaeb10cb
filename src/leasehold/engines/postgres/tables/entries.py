"""The table of entries. A value that JSONB would change is also stored as text (`jsonb`).

The column `exact` has this text, and is NULL for other JSON values. It is empty if the value is bytes: then the columns
`media` and `bytes` count, and no others do.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Final, cast

from leasehold.engines.postgres.differences import LARGE_DOCUMENT_BYTES, Difference, difference
from leasehold.engines.postgres.jsonb import is_changed_by_jsonb
from leasehold.engines.postgres.tables.table import Column, Document, Table
from leasehold.model import ENTRY, Binary, Change, Content, Deletion, Entry, Value
from leasehold.values import UNREADABLE, is_json

_BYTES: Final = ""
"""The column `exact` of bytes. It is no JSON text, so servers of an earlier version do not read the row as JSON."""
_NULL: Final = b"null"
"""The column `data` of bytes."""
_EXACT_COLUMN: Final = 6
_TEXT: Final = "stored.data::text"
_SPACES: Final = rf"""regexp_replace({_TEXT}, E'"(?:[^"\\\\]|\\\\.)*"|[^ "]+', '', 'g')"""
"""The spaces that JSONB has put between the parts of a value. They do not count, because they are not read."""


def record(
    key: str,
    data: bytes,
    revision: int,
    created_at: int,
    updated_at: int,
    expires_at: int | None,
    exact: str | None,
    media: str | None,
    content: bytes | None,
) -> Entry:
    """The entry of a row. Its value is UNREADABLE if another program wrote something that is not JSON."""
    if exact is not None:
        if media is not None and content is not None and exact == _BYTES:
            return Entry(key, Binary(media, Content(content)), revision, created_at, updated_at, expires_at)
        data = exact.encode()
        if not is_json(data):
            data = UNREADABLE
    return Entry(key, data, revision, created_at, updated_at, expires_at)


def values(entries: Sequence[Entry]) -> tuple[Sequence[object] | None, ...]:
    """See `Table.values`."""
    sent = [each.value for each in entries]
    media: list[str | None] | None = None
    content: list[bytes | None] | None = None
    if all(sent):
        texts = cast("list[bytes]", sent)
        exact = [text.decode() if is_changed_by_jsonb(text) else None for text in texts]
    else:
        texts = [_NULL if isinstance(value, Binary) else value for value in sent]
        exact = [_exact_text(value) for value in sent]
        media = [value.media if isinstance(value, Binary) else None for value in sent]
        content = [value.data if isinstance(value, Binary) else None for value in sent]
    expires_at = [each.expires_at for each in entries]
    return (
        [each.key for each in entries],
        texts,
        [each.revision for each in entries],
        [each.created_at for each in entries],
        [each.updated_at for each in entries],
        expires_at if any(expires_at) else None,
        exact if media is not None or any(exact) else None,
        media,
        content,
    )


def growth(
    before: Mapping[str, Entry], touched: Container[str], changes: Sequence[Change]
) -> tuple[int, int, list[str]]:
    """See `Growth`. A value takes as many bytes when it is read as when it was written."""
    count = size = 0
    unknown = []
    for change in cast("Sequence[Entry | Deletion]", changes):
        key = change.key  # not `name`, a property: the loop would take a third longer
        old = before.get(key)
        if type(change) is Entry:
            size += len(change.value)
            if old is not None:  # the key counts already
                size -= len(old.value)
                continue
            count += 1
            size += len(key.encode())
        elif old is not None:
            count -= 1
            size -= len(key.encode()) + len(old.value)
        if old is None and key not in touched:
            unknown.append(key)
    return count, size, unknown


def _exact_text(value: Value) -> str | None:
    if isinstance(value, Binary):
        return _BYTES
    return value.decode() if is_changed_by_jsonb(value) else None


def part(stored: Sequence[object], before: Entry, after: Entry) -> Difference | None:
    """See `Document.part`. If the value is stored as text or as bytes, the whole value is sent."""
    old, new, exact = before.value, after.value, stored[_EXACT_COLUMN]
    if len(old) < LARGE_DOCUMENT_BYTES or exact is not None or isinstance(old, Binary) or isinstance(new, Binary):
        return None
    found = difference(old, new)
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
        Column("media", "text"),
        Column("bytes", "bytea", read="CASE WHEN stored.exact = '' THEN stored.bytes END", is_large=True),
    ),
    record=record,
    values=values,
    document=Document("data", ("revision", "created_at", "updated_at", "expires_at"), part),
    size=f"""octet_length(stored.key) + CASE
        WHEN stored.exact = '' THEN coalesce(octet_length(stored.bytes), 0)
        WHEN stored.exact IS NOT NULL THEN octet_length(stored.exact)
        ELSE octet_length({_TEXT}) - octet_length({_SPACES})
    END""",
    growth=growth,
)
