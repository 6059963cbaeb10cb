"""The statements that read what has changed after a revision: from the table `batches`, or from the tables of records.

docs/decisions/batches-table.md says why there are two.
"""

from typing import Final

from leasehold.engines.postgres.tables import AnyTable
from leasehold.model import KINDS

OF_ANY_KIND: Final = f"kind = ANY('{{{','.join(kind.name for kind in KINDS)}}}'::text[])"
"""Of any kind. Each commit has a row in `batches` with its head as the revision."""


def changes(table: AnyTable) -> str:
    """Reads the names in the next batches, about `scanned`, and looks up the record or the removal of each name.

    Returns the first `limit` of those with the prefix. A name is skipped if it has changed again after these batches.
    Each row begins with the head and the compacted revision; whether `batches` has all changes; whether no batches are
    left, and the revision of the last one that was read. Then the name, the revision, whether there is a record, and
    the record.

    `WITH TIES` returns all changes of a revision, never a part of them; those are in the order of their names. The
    LIMIT in the lookups prevents joins that would read whole tables.
    """
    kind, name = table.kind.name, table.name_column
    return f"""
        WITH batch AS MATERIALIZED (
            SELECT revision, names, sum(cardinality(names)) OVER (ORDER BY revision) - cardinality(names) AS ahead
            FROM (
                SELECT revision, names FROM batches WHERE namespace = $1 AND kind = '{kind}' AND revision > $2
                ORDER BY revision LIMIT $4::bigint + 1
            ) AS next
        ), bound AS MATERIALIZED (
            SELECT count(*) FILTER (WHERE ahead >= $4::bigint) = 0 AS is_end,
                max(revision) FILTER (WHERE ahead < $4::bigint) AS revision
            FROM batch
        ), named AS MATERIALIZED (
            SELECT DISTINCT name FROM batch CROSS JOIN unnest(names) AS name
            WHERE ahead < $4::bigint AND starts_with(name, $3)
        )
        SELECT head.revision, head.compacted_revision, EXISTS (
            SELECT FROM batches
            WHERE namespace = $1 AND {OF_ANY_KIND} AND revision = head.revision AND complete_from <= $2
        ), bound.is_end, bound.revision, change.*
        FROM head CROSS JOIN bound LEFT JOIN LATERAL (
            SELECT named.name AS changed_name, coalesce(found.revision, removed.revision) AS changed_at,
                found.{name} IS NOT NULL AS is_there, found.*
            FROM named LEFT JOIN LATERAL (
                SELECT {table.selected} FROM {table.name} AS stored
                WHERE namespace = $1 AND stored.{name} = named.name LIMIT 1
            ) AS found ON true LEFT JOIN LATERAL (
                SELECT revision FROM deletions
                WHERE namespace = $1 AND kind = '{kind}' AND key = named.name AND found.{name} IS NULL LIMIT 1
            ) AS removed ON true
            WHERE coalesce(found.revision, removed.revision) > $2
            AND coalesce(found.revision, removed.revision) <= bound.revision
            ORDER BY changed_at FETCH FIRST $5 ROWS WITH TIES
        ) AS change ON true WHERE head.namespace = $1 ORDER BY change.changed_at, change.changed_name
    """


def changes_of_tables(table: AnyTable) -> str:
    """Reads the first `scanned` records and removals by revision. Returns rows like those of `changes`.

    Each change is looked up by name once more, because a name that was written again still has a removal.
    """
    after = "namespace = $1 AND revision > $2 ORDER BY revision FETCH FIRST ($4::bigint + 1) ROWS WITH TIES"
    return f"""
        WITH scanned AS MATERIALIZED (
            SELECT * FROM (
                (SELECT {table.name_column} AS name, revision, true AS is_there FROM {table.name} WHERE {after})
                UNION ALL
                (SELECT key, revision, false FROM deletions WHERE kind = '{table.kind.name}' AND {after})
            ) AS either ORDER BY revision FETCH FIRST ($4::bigint + 1) ROWS WITH TIES
        ), bound AS MATERIALIZED (
            SELECT count(*) <= $4::bigint AS is_end, max(revision) AS revision FROM scanned
        )
        SELECT head.revision, head.compacted_revision, true, bound.is_end, bound.revision, change.*
        FROM head CROSS JOIN bound LEFT JOIN LATERAL (
            SELECT scanned.name AS changed_name, scanned.revision AS changed_at, scanned.is_there, found.*
            FROM scanned LEFT JOIN LATERAL (
                SELECT {table.selected} FROM {table.name} AS stored
                WHERE namespace = $1 AND stored.{table.name_column} = scanned.name LIMIT 1
            ) AS found ON true
            WHERE starts_with(scanned.name, $3) AND (scanned.is_there OR found.{table.name_column} IS NULL)
            ORDER BY scanned.revision FETCH FIRST $5 ROWS WITH TIES
        ) AS change ON true WHERE head.namespace = $1 ORDER BY change.changed_at, change.changed_name
    """
