"""The statements about records, built once from the descriptions of the tables (`tables`).

The first parameter of each statement ($1) is the namespace. Statements that change data are deterministic: a time that
they need is a parameter, which a SELECT has read before. The parameter `clock` below, a `$n::timestamptz`, is NULL
except in tests, which give the time.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain, count
from typing import Final

from leasehold.engines.postgres.change_statements import OF_ANY_KIND, changes, changes_of_tables
from leasehold.engines.postgres.head_statements import CHANNEL
from leasehold.engines.postgres.tables import TABLES, AnyTable
from leasehold.model import AnyKind

# Names and times --------------------------------------------------------------------------------------------------

SEPARATOR: Final = "\x1f"


def joined(names: Iterable[str]) -> str:
    """Names, or values of a lookup, as one parameter for `_any_of`. None of them contains a control character.

    This costs 0.2 µs less for each name than an array, which is a sixth of the cost of a gathered read here.
    """
    return SEPARATOR.join(names)


def _any_of(parameter: str) -> str:
    return f"ANY(string_to_array({parameter}, chr({ord(SEPARATOR)})))"


def _now(clock: str) -> str:
    """The time, in a sub-select, so that the clock is read once per statement."""
    return f"(SELECT coalesce({clock}::timestamptz, clock_timestamp()))"


def _is_live(clock: str) -> str:
    return f"(stored.expires_at IS NULL OR stored.expires_at > {_now(clock)})"


# Records of one kind ----------------------------------------------------------------------------------------------


class KindStatements:
    """The statements about the records of one kind. The parameter `names` is made by `joined`."""

    def __init__(self, table: AnyTable) -> None:
        source = f"FROM {table.name} AS stored WHERE namespace = $1"
        name, columns = table.name_column, table.selected
        self.read = f"""
            SELECT {columns}, (SELECT incarnation FROM head WHERE namespace = $1)
            {source} AND stored.{name} = {_any_of("$2")} AND {_is_live("$3")}
        """
        """names, clock. Returns the incarnation of the same moment, too: an ETag may be compared with that one only."""
        listed = f"AND stored.{name} >= $2 AND stored.{name} > $3 AND stored.{name} < $4 AND {_is_live('$6')}"
        self.scan, self.scan_back = (
            f"""
            SELECT head.revision, page.* FROM head LEFT JOIN LATERAL (
                {_bounded(table, f"SELECT * {source} {listed} ORDER BY stored.{name} {order} LIMIT $5", order, "$7")}
            ) AS page ON true WHERE head.namespace = $1 ORDER BY page.{name} {order}
            """
            for order in ("ASC", "DESC")
        )
        """from, after, before, limit, clock, weight. The rows are as in `_bounded`, after the head. There is at least
        one row. `scan_back` has them in descending order."""
        self.count, self.count_back = (
            f"""
            SELECT head.revision, counted.* FROM head CROSS JOIN LATERAL (
                SELECT count(*), {last}(name) FROM (
                    SELECT stored.{name} AS name {source} {listed} ORDER BY stored.{name} {order} LIMIT $5
                ) AS listed
            ) AS counted WHERE head.namespace = $1
            """
            for order, last in (("ASC", "max"), ("DESC", "min"))
        )
        """from, after, before, limit, clock. Returns the head, the number, and the last name."""
        self.read_all = f"""
            SELECT head.revision, head.incarnation, found.* FROM head LEFT JOIN LATERAL (
                SELECT stored.weight > $4, {_light_columns(table, "stored.weight <= $4")} FROM (
                    SELECT stored.*, sum({_weight(table)}) OVER () AS weight
                    {source} AND stored.{name} = {_any_of("$2")} AND {_is_live("$3")}
                ) AS stored
            ) AS found ON true WHERE head.namespace = $1
        """
        """names, clock, weight. Each row begins with the head, its incarnation, and whether all records together have
        more weight; then their large columns are NULL. There is at least one row."""
        later = f"SELECT * {source} AND stored.{name} > $2 AND {_is_live('$4')} ORDER BY stored.{name} LIMIT $3"
        self.next_page = f"{_bounded(table, later, 'ASC', '$5')} ORDER BY stored.{name}"
        """after, limit, clock, weight. The rows are as in `_bounded`."""
        self.add = _insert(table, _casts(table, count(2)))
        """The arrays of `Table.values`."""
        self.changes = changes(table)
        """after_revision, prefix, scanned, limit. The third column of the first row: whether `batches` has all of them.
        If not, use `changes_of_tables`."""
        self.changes_of_tables = changes_of_tables(table)
        """The same, by reading all records: a server of an older version has written some without `batches`."""
        self.surplus = f"""
            SELECT name FROM (
                SELECT {name} AS name, expires_at, row_number() OVER latest AS place,
                    sum({table.size or 0}) OVER latest AS bytes
                {source} AND expires_at IS NOT NULL WINDOW latest AS (ORDER BY expires_at DESC, {name} DESC)
            ) AS ranked WHERE place > $2 OR bytes > $3 ORDER BY expires_at, name LIMIT $4
        """
        """most, most_bytes, limit."""
        self.sizes = f"""
            SELECT count(*), coalesce(sum({table.size or 0}), 0)::bigint {source} AND stored.{name} = {_any_of("$2")}
        """
        """names. Returns how many of them there are, and the sum of their sizes."""
        self.set_part, self.remove_part = _write_part(table)
        """name, path, the values of the columns beside the document; `set_part` also has the part."""


def _light_columns(table: AnyTable, condition: str) -> str:
    """The columns; the large ones only if the condition holds, otherwise NULL."""
    return ", ".join(
        f"CASE WHEN {condition} THEN {column.expression} END AS {column.name}" if column.is_large else column.expression
        for column in table.columns
    )


COMPRESSED_WEIGHT: Final = 16
"""How many times its size in the table a compressed value counts. PostgreSQL compresses JSON to as little as a 90th, so
records of a given weight have up to 6 times as many bytes; usually they have fewer."""


def _weight(table: AnyTable) -> str:
    """The weight of the row `stored`: about the bytes of its large columns, found without reading them."""
    sizes = (
        f"coalesce(pg_column_size(stored.{name}) * CASE WHEN pg_column_compression(stored.{name}) IS NULL"
        f" THEN 1 ELSE {COMPRESSED_WEIGHT} END, 0)"
        for name in (column.name for column in table.columns if column.is_large)
    )
    return " + ".join(sizes) or "0"


def _bounded(table: AnyTable, records: str, order: str, weight: str) -> str:
    """The first of these records: those whose weight together is at most `weight`, and one more.

    A row has the number of all `records`, which shows whether there are more, and then the columns.
    """
    return f"""
        SELECT stored.found, {table.selected} FROM (
            SELECT stored.*, count(*) OVER () AS found, sum({_weight(table)}) OVER (
                ORDER BY stored.{table.name_column} {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS weight_before
            FROM ({records}) AS stored
        ) AS stored WHERE coalesce(stored.weight_before, 0) <= {weight}
    """


def _casts(table: AnyTable, numbers: Iterable[int]) -> str:
    """The parameters for the arrays of `Table.values`."""
    return ", ".join(f"${number}::{column.type}[]" for column, number in zip(table.columns, numbers, strict=False))


def _insert(table: AnyTable, arrays: str) -> str:
    names = ", ".join(column.name for column in table.columns)
    return f"INSERT INTO {table.name} (namespace, {names}) SELECT $1, * FROM unnest({arrays})"


def _write_part(table: AnyTable) -> tuple[str, str]:
    if table.document is None:
        return "", ""
    document, beside = table.document.column, table.document.beside
    others = ", ".join(f"{column} = ${number}" for number, column in enumerate(beside, start=4))
    where = f"WHERE namespace = $1 AND {table.name_column} = $2"
    change = f"jsonb_set({document}, $3::text[], ${len(beside) + 4}::jsonb)"
    return (
        f"UPDATE {table.name} SET {document} = {change}, {others} {where}",
        f"UPDATE {table.name} SET {document} = {document} #- $3::text[], {others} {where}",
    )


OF_KIND: Final[Mapping[AnyKind, KindStatements]] = {kind: KindStatements(table) for kind, table in TABLES.items()}

# Records of several kinds -----------------------------------------------------------------------------------------

Part = tuple[AnyKind, bool]
"""A kind that a batch changes, and whether the batch removes records of this kind."""

LOADED_AT: Final = 6
"""The index of the first column of a record in the rows of `load`."""


@cache
def load(kinds: Sequence[AnyKind]) -> str:
    """Read the clock and the head, and load the records of a batch. Lock the head before.

    Parameters: clock. Then for each kind its names, and the values of its lookup if it has one; each made by `joined`.
    The first row has the time and the head, the others are records; what a row does not have is NULL. A row has the
    columns of all `kinds`. The last two columns of the head: the revision after which `batches` has all changes, and
    the members of `view.Totals`, or NULL if the namespace exists and has no quota.
    """
    columns = "".join(f", NULL::{column.type}" for kind in kinds for column in TABLES[kind].columns)
    stored = f"UNION ALL SELECT {'NULL, ' * LOADED_AT}stored.* FROM ({_stored(kinds)}) AS stored" if kinds else ""
    return f"""
        WITH current AS MATERIALIZED (
            SELECT coalesce($2::timestamptz, clock_timestamp()) AS now, revision, compacted_revision, incarnation,
                coalesce((
                    SELECT complete_from FROM batches
                    WHERE namespace = $1 AND {OF_ANY_KIND} AND revision = head.revision LIMIT 1
                ), revision) AS complete_from,
                CASE WHEN deleted_at IS NOT NULL OR max_entries IS NOT NULL OR max_bytes IS NOT NULL THEN ARRAY[
                    (deleted_at IS NOT NULL)::int, max_entries, max_bytes,
                    CASE WHEN summed_from = 0 AND summed_to = revision THEN entries END, bytes
                ] END AS totals
            FROM head WHERE namespace = $1
        )
        SELECT current.*{columns} FROM current {stored}
    """


def _stored(kinds: Sequence[AnyKind]) -> str:
    numbers = count(3)
    selects = []
    for kind in kinds:
        table = TABLES[kind]
        columns = ", ".join(
            other.selected if other is table else ", ".join(f"NULL::{column.type}" for column in other.columns)
            for other in map(TABLES.__getitem__, kinds)
        )
        for column in (table.name_column, table.lookup):
            if column:
                wanted = f"stored.{column} = {_any_of(f'${next(numbers)}')}"
                selects.append(f"SELECT {columns} FROM {table.name} AS stored WHERE namespace = $1 AND {wanted}")
    return " UNION ALL ".join(selects)


@cache
def write(parts: Sequence[Part], *, is_told: bool = True) -> str:
    """Write a batch, without its COMMIT: the records, the removals, the head, the signature, the notification.

    `is_told`: with the notification.

    Parameters: head, writer, batch, time, `complete_from` as loaded, and by how much the members of `Usage` change.
    Then for each part: the arrays of `Table.values`; if the table has a document, the names that were written by
    `set_part` and `remove_part`; if it removes records, their names, and their revisions if the kind has a history.
    Only the last removal of a name is stored, so that `changes` reads no earlier one.

    No step reads what another one returns: Citus would send that to all nodes, and commit on all of them.

    Returns no row, so that COMMIT can be sent with it: OFFSET skips the row after its expressions were computed.
    """
    numbers = count(9)
    steps = []
    for kind, removes in parts:
        table = TABLES[kind]
        name = table.name_column
        updates = ", ".join(f"{column.name} = excluded.{column.name}" for column in table.columns[1:])
        first = next(numbers)
        changed = [f"${first}::text[]"]
        steps.append(f"""
            written_{kind.name} AS (
                {_insert(table, _casts(table, chain((first,), numbers)))}
                ON CONFLICT (namespace, {name}) DO UPDATE SET {updates}
            )""")
        if table.document is not None:
            changed.append(f"${next(numbers)}::text[]")
        if removes:
            names = f"${next(numbers)}::text[]"
            changed.append(names)
            steps.append(f"""
            removed_{kind.name} AS (
                DELETE FROM {table.name} WHERE namespace = $1 AND {name} = ANY({names})
            )""")
            if kind.has_history:
                steps.append(f"""
            replaced_{kind.name} AS (
                DELETE FROM deletions WHERE namespace = $1 AND kind = '{kind.name}' AND key = ANY({names})
            ), noted_{kind.name} AS (
                INSERT INTO deletions (namespace, kind, key, revision)
                SELECT $1, '{kind.name}', * FROM unnest({names}, ${next(numbers)}::bigint[])
            )""")
        if kind.has_history:
            steps.append(f"""
            logged_{kind.name} AS (
                INSERT INTO batches (namespace, kind, revision, complete_from, names)
                SELECT $1, '{kind.name}', $2::bigint, $6::bigint, names
                FROM (SELECT {" || ".join(changed)}) AS changed (names) WHERE cardinality(names) > 0
                ON CONFLICT (namespace, kind, revision) DO UPDATE SET names = batches.names || excluded.names
            )""")
        elif len(parts) == 1:
            # Without names: the row shows that this commit, too, is complete. Else the next reader reads whole tables.
            steps.append(f"""
            logged_{kind.name} AS (
                INSERT INTO batches (namespace, kind, revision, complete_from, names)
                VALUES ($1, '{kind.name}', $2::bigint, $6::bigint, '{{}}')
                ON CONFLICT (namespace, kind, revision) DO NOTHING
            )""")
    kinds = "".join(f" || chr({ord(SEPARATOR)}) || '{kind.name}'" for kind, _ in parts)
    notification = f"pg_notify('{CHANNEL}', current_schema() || '/' || $1 || '/' || $2::bigint {kinds})"
    return f"""
        WITH {", ".join(steps)}, advanced AS (
            UPDATE head SET revision = $2, entries = entries + $7, bytes = bytes + $8,
                summed_from = CASE WHEN summed_to = revision THEN summed_from ELSE revision END, summed_to = $2
            WHERE namespace = $1
        ), signed AS (
            INSERT INTO writers (namespace, writer, batch, written_at) VALUES ($1, $3, $4, $5)
            ON CONFLICT (namespace, writer) DO UPDATE SET batch = excluded.batch, written_at = excluded.written_at
        )
        SELECT {notification if is_told else "NULL"} OFFSET 1
    """


HOLDS_ANYTHING: Final = "SELECT " + " OR ".join(
    f"EXISTS (SELECT FROM {table.name} WHERE namespace = $1)" for table in TABLES.values()
)
REMOVE_EVERYTHING: Final = tuple(
    f"DELETE FROM {name} WHERE namespace = $1"
    for name in (*(table.name for table in TABLES.values()), "deletions", "batches")
)

# Removals ---------------------------------------------------------------------------------------------------------

SURPLUS: Final = "SELECT max(revision) FROM ({}) AS surplus".format(
    " UNION ALL ".join(
        f"""(
            SELECT revision FROM deletions WHERE namespace = $1 AND kind = '{kind.name}'
            ORDER BY revision DESC OFFSET $2 LIMIT 1
        )"""
        for kind in TABLES
        if kind.has_history
    )
)
"""number. The revision up to which removals must be forgotten, so that at most so many of each kind are known; or
NULL."""

COMPACT: Final = """
    WITH removed AS (
        DELETE FROM deletions WHERE namespace = $1 AND (kind, revision, key) IN (
            SELECT kind, revision, key FROM deletions WHERE namespace = $1 AND kind = ANY($3::text[]) AND revision <= $2
            ORDER BY kind, revision, key LIMIT $4
        )
    ), forgotten AS (
        DELETE FROM batches WHERE namespace = $1 AND (kind, revision) IN (
            SELECT kind, revision FROM batches WHERE namespace = $1 AND kind = ANY($3::text[]) AND revision <= $2
            ORDER BY kind, revision LIMIT $4
        )
    )
    UPDATE head SET compacted_revision = $2 WHERE namespace = $1
"""
"""revision, kinds, limit. Forgets all removals up to a revision, and deletes some of their rows. The others are deleted
later: nothing reads them."""
