"""The statements about namespaces as a whole: what they are, what they hold, how they are deleted.

What a namespace holds is in its head as sums, `entries` and `bytes`. Each commit changes them by a difference, so a
commit of a namespace without a quota does not read them. They have the changes of the commits after `summed_from` up to
`summed_to`, beside what they had before. If `summed_from` is 0, they have all there is. If `summed_to` is not the head,
a server of an earlier version has committed since, and the next commit begins anew with `summed_from`.

Counting needs no lock. What is counted is as of one moment, and the head has the sums of the same moment. The
difference between both is then added to the sums, if they have all commits since.
"""

from typing import Final

from leasehold.engines.postgres.head_statements import CHANNEL
from leasehold.engines.postgres.tables import TABLES

_IS_COUNTED: Final = "coalesce(summed_from = 0 AND summed_to = revision, false)"
_DESCRIPTION: Final = f"""
    namespace, revision, incarnation, created_at, deleted_at, max_entries, max_bytes,
    greatest(entries, 0) AS entries, greatest(bytes, 0) AS bytes, {_IS_COUNTED} AS is_counted
"""
DESCRIBE: Final = f"SELECT {_DESCRIPTION} FROM head WHERE namespace = $1"
"""`entries` and `bytes` say nothing unless `is_counted`."""
LIST: Final = f"""
    SELECT {_DESCRIPTION} FROM head WHERE namespace > $1 AND deleted_at IS NULL ORDER BY namespace LIMIT $2
"""
"""after, limit. Those that exist."""
ALL: Final = f"SELECT {_DESCRIPTION} FROM head"
"""Also those that were deleted."""
NAMES: Final = "SELECT namespace FROM head ORDER BY namespace"
"""Also those that were deleted."""
SET_QUOTA: Final = "UPDATE head SET max_entries = $2, max_bytes = $3 WHERE namespace = $1"
SET_DESCRIPTION: Final = """
    UPDATE head SET created_at = coalesce($2, created_at), deleted_at = NULL, max_entries = $3, max_bytes = $4
    WHERE namespace = $1
"""
"""time, quota. For a namespace that was restored or moved."""
BEGIN: Final = """
    UPDATE head SET incarnation = $2, created_at = $3, deleted_at = NULL, compacted_revision = revision
    WHERE namespace = $1
"""
"""incarnation, time. For a namespace that is new, or was deleted and is empty."""

# Usage ------------------------------------------------------------------------------------------------------------

_COUNTED: Final = ", ".join(
    f"(SELECT {measure} FROM {table.name} AS stored WHERE namespace = $1)"
    for table in TABLES.values()
    if table.growth is not None
    for measure in ("count(*)", f"coalesce(sum({table.size}), 0)::bigint")
)
COUNT: Final = f"SELECT revision, entries, bytes, {_COUNTED} FROM head WHERE namespace = $1 AND deleted_at IS NULL"
"""Returns the head, the sums, and the members of `Usage`, all as of one moment."""
ADD_TO_SUMS: Final = f"""
    UPDATE head SET entries = entries + $3, bytes = bytes + $4, summed_from = 0, summed_to = revision
    WHERE namespace = $1 AND deleted_at IS NULL
        AND NOT {_IS_COUNTED} AND (revision = $2 OR (summed_from <= $2 AND summed_to = revision))
"""
"""The head of COUNT, and the differences. Does nothing if the sums lack commits since, or if another one has counted.

Nor if the namespace was deleted: sums that are known would say that all its rows were removed.
"""
SET_USAGE: Final = """
    UPDATE head SET entries = $2, bytes = $3, summed_from = 0, summed_to = revision WHERE namespace = $1
"""
"""The members of `Usage`, while the head is locked."""

# Deleted ones -----------------------------------------------------------------------------------------------------

MARK_DELETED: Final = """
    UPDATE head SET deleted_at = $2, revision = revision + 1, max_entries = NULL, max_bytes = NULL, summed_to = NULL
    WHERE namespace = $1
"""
"""time. The deletion has a revision of its own. The namespace may still have rows; SET_USAGE marks it as empty."""
DELETED: Final = "deleted"
TELL_DELETED: Final = f"SELECT pg_notify('{CHANNEL}', current_schema() || '/' || $1::text || '/{DELETED}/' || $2::text)"
"""incarnation."""
REVIVE: Final = "UPDATE head SET deleted_at = NULL WHERE namespace = $1"
NOT_EMPTY: Final = "SELECT namespace FROM head WHERE deleted_at IS NOT NULL AND summed_to IS NULL LIMIT 10"
"""Namespaces that were deleted, and may still have rows."""
REMOVE_SOME: Final = tuple(
    f"""
    DELETE FROM {table} WHERE namespace = $1 AND ({columns}) IN (
        SELECT {columns} FROM {table} WHERE namespace = $1 ORDER BY {columns} LIMIT $2
    )
    """
    for table, columns in (
        *((table.name, table.name_column) for table in TABLES.values()),
        ("deletions", "kind, revision, key"),
        ("batches", "kind, revision"),
    )
)
"""limit. `writers` keeps its rows: a server may still look for the outcome of a batch there."""
