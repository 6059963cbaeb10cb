"""The tables of records. Each kind has one module, which describes its table as data.

To add a kind, add its module, its line in TABLES, and a migration that creates the table (`schema`). All statements
about records are built from these descriptions (`record_statements`).
"""

from collections.abc import Mapping
from typing import Final

from leasehold.engines.postgres.tables import entries, leases, receipts
from leasehold.engines.postgres.tables.table import AnyTable, Table
from leasehold.model import ENTRY, LEASE, RECEIPT, AnyKind, Kind, R

__all__ = ["TABLES", "AnyTable", "Table", "table_of"]

TABLES: Final[Mapping[AnyKind, AnyTable]] = {
    ENTRY: entries.TABLE,  # type: ignore[dict-item] # of this kind of record
    LEASE: leases.TABLE,  # type: ignore[dict-item]
    RECEIPT: receipts.TABLE,  # type: ignore[dict-item]
}


def table_of(kind: Kind[R]) -> Table[R]:
    """The table of a kind."""
    return TABLES[kind]  # type: ignore[index, return-value] # the kind says which
