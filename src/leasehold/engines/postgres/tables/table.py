"""What the engine knows of the table in which the records of one kind are stored."""

from collections.abc import Callable, Sequence
from typing import Generic

import msgspec

from leasehold.engines.postgres.differences import Difference
from leasehold.model import Entry, Kind, Lease, R


class Column(msgspec.Struct, frozen=True):
    """A column beside `namespace`. `read`: the expression that reads it from the row `stored`, if not its name."""

    name: str
    type: str
    read: str = ""

    @property
    def expression(self) -> str:
        """What a SELECT asks for."""
        return self.read or f"stored.{self.name}"


class Document(msgspec.Struct, Generic[R], frozen=True):
    """The column of a JSONB document of which a part can be written alone.

    `beside` are the columns that change together with it. Each has the name of a field of the record.
    `part(stored, before, after)` is the only part in which `after` differs from `before`, whose row is `stored`, or
    None if all of it must be sent.
    """

    column: str
    beside: tuple[str, ...]
    part: Callable[[Sequence[object], R, R], Difference | None]


class Table(msgspec.Struct, Generic[R], frozen=True):
    """The table of one kind. Its primary key is the namespace and the first of `columns`, which holds the name.

    It also has the columns `revision` and `expires_at`, each in an index after the namespace.
    """

    kind: Kind[R]
    name: str
    columns: tuple[Column, ...]
    """In the order of the fields of the record; those that it has no field for come last."""
    record: Callable[..., R]
    """Makes a record of the values of `columns`."""
    values: Callable[[Sequence[R]], tuple[Sequence[object] | None, ...]]
    """Of records, an array for each of `columns`. A column that is NULL throughout is one None."""
    lookup: str = ""
    """The column of `Kind.lookup`, which is in an index after the namespace."""
    document: Document[R] | None = None
    is_contended: bool = False
    """Callers of several servers compete for a name as soon as its record is removed, so all servers must be notified
    at about the same time."""

    @property
    def name_column(self) -> str:
        """The column that holds the name."""
        return self.columns[0].name


AnyTable = Table[Entry] | Table[Lease]
