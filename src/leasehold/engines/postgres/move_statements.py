"""The statements of a move (`moves`). Those about records are built from the descriptions of the tables."""

from typing import Final

from leasehold.engines.postgres.tables import TABLES, AnyTable
from leasehold.model import KINDS

IS_STORE: Final = "SELECT true FROM head WHERE namespace = $1"
"""Names only columns of the first version of the tables."""
HEAD: Final = "SELECT revision, compacted_revision, incarnation FROM head WHERE namespace = $1"
SET_HEAD: Final = "UPDATE head SET revision = $2, compacted_revision = $3, incarnation = $4 WHERE namespace = $1"

ADD_BATCHES: Final = """
    INSERT INTO batches (namespace, kind, revision, complete_from, names)
    SELECT $1, kind, revision, $2, array_agg(name) FROM (
        SELECT kind, key AS name, revision FROM deletions WHERE namespace = $1 AND revision > $2
        {}
    ) AS change GROUP BY kind, revision
""".format(
    " ".join(
        f"UNION ALL SELECT '{kind.name}', {table.name_column}, revision FROM {table.name}"
        " WHERE namespace = $1 AND revision > $2"
        for kind, table in TABLES.items()
        if kind.has_history
    )
)
"""compacted_revision. A row for each revision after it and each kind that has a history."""
ADD_BATCH_OF_HEAD: Final = f"""
    INSERT INTO batches (namespace, kind, revision, complete_from, names)
    SELECT $1, '{KINDS[0].name}', $2::bigint, $3::bigint, '{{}}'
    WHERE NOT EXISTS (SELECT FROM batches WHERE namespace = $1 AND revision = $2::bigint)
"""
"""revision, compacted_revision. If there are no changes at the head, this row shows that `batches` is complete."""


def count_of(table: AnyTable) -> str:
    """Counts the records of a kind."""
    return f"SELECT count(*) FROM {table.name} WHERE namespace = $1"


def removals_of(table: AnyTable) -> str:
    """Reads removals of a kind: compacted_revision, after, limit.

    `deletions` may also have names that were written again, and removals that are forgotten.
    """
    return f"""
        SELECT key, max(revision) FROM deletions AS removed
        WHERE namespace = $1 AND kind = '{table.kind.name}' AND revision > $2 AND key > $3 AND NOT EXISTS (
            SELECT FROM {table.name} AS stored WHERE stored.namespace = $1 AND stored.{table.name_column} = removed.key
        )
        GROUP BY key ORDER BY key LIMIT $4
    """
