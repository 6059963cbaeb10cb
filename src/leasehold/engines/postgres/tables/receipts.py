"""The table of receipts."""

from collections.abc import Sequence
from typing import Final

from leasehold.engines.postgres.tables.table import Column, Table
from leasehold.model import RECEIPT, Receipt


def values(receipts: Sequence[Receipt]) -> tuple[Sequence[object] | None, ...]:
    """See `Table.values`."""
    return (
        [each.request for each in receipts],
        [each.memo for each in receipts],
        [each.revision for each in receipts],
        [each.expires_at for each in receipts],
    )


TABLE: Final = Table(
    kind=RECEIPT,
    name="receipts",
    columns=(
        Column("request", "text"),
        Column("memo", "bytea"),
        Column("revision", "bigint"),
        Column("expires_at", "timestamptz"),
    ),
    record=Receipt,
    values=values,
    size="octet_length(memo)",
)
