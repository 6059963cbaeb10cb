"""The description of a table, which stores the records of one kind."""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Generic

import msgspec

from leasehold.engines.postgres.differences import Difference
from leasehold.model import Change, Kind, R, Record


class Column(msgspec.Struct, frozen=True):
    """A column other than `namespace`. `read`: the expression that reads it from the row `stored`, if not its name.

    `is_large`: its values may have megabytes, so a query reads a limited number of them.
    """

    name: str
    type: str
    read: str = ""
    is_large: bool = False

    @property
    def expression(self) -> str:
        """The expression in a SELECT."""
        return self.read or f"stored.{self.name}"


class Document(msgspec.Struct, Generic[R], frozen=True):
    """The column of a JSONB document, of which one part can be written without the rest.

    The columns in `beside` change together with it. Each has the name of a field of the record.
    `part(stored, before, after)` returns the only part in which `after` differs from `before`, whose row is `stored`.
    It returns None if the whole document must be sent.
    """

    column: str
    beside: tuple[str, ...]
    part: Callable[[Sequence[object], R, R], Difference | None]


Growth = Callable[[Mapping[str, R], Container[str], Sequence[Change]], tuple[int, int, list[str]]]
"""`growth(before, touched, changes)` → by how much changes make the members of `Usage` larger.

`before` has the stored records with the names in `touched`. The last item has the other names in `changes`: if there
are records with these names, they must be subtracted.
"""


class Table(msgspec.Struct, Generic[R], frozen=True):
    """The table of one kind. Its primary key is the namespace and the first of `columns`, which holds the name.

    It also has the columns `revision` and `expires_at`. An index has `expires_at` after the namespace. No index has
    `revision`: PostgreSQL can then rewrite a row without touching an index, if its expiry does not change.
    """

    kind: Kind[R]
    name: str
    columns: tuple[Column, ...]
    """In the order of the fields of the record. Columns without a field come last."""
    record: Callable[..., R]
    """Makes a record from the values of `columns`."""
    values: Callable[[Sequence[R]], tuple[Sequence[object] | None, ...]]
    """Returns, for the given records, an array for each of `columns`. If all values are NULL, it is None instead."""
    lookup: str = ""
    """The column of `Kind.lookup`. An index has it after the namespace."""
    document: Document[R] | None = None
    size: str = ""
    """The expression for the size in bytes of the row `stored`, for a kind that is limited. Empty: it counts as 0."""
    growth: Growth[R] | None = None
    """For the kind whose records count in `Usage`; `size` is then what a record adds to `Usage.bytes`."""
    is_contended: bool = False
    """Whether callers of several servers compete for a name as soon as its record is removed. If so, all servers must
    be notified at about the same time."""

    @property
    def selected(self) -> str:
        """All columns of the row `stored`, for a SELECT."""
        return ", ".join(
            column.expression if not column.read else f"{column.read} AS {column.name}" for column in self.columns
        )

    @property
    def name_column(self) -> str:
        """The column that holds the name."""
        return self.columns[0].name


AnyTable = Table[Record]
