"""The statements that remove what has expired, and elect the server that does it."""

from typing import Final

from leasehold.engines.postgres.tables import TABLES

SIGN_AS_CLEANER: Final = """
    INSERT INTO writers (namespace, writer, batch, written_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (namespace, writer) DO UPDATE SET batch = excluded.batch, written_at = excluded.written_at
    WHERE writers.batch = excluded.batch OR writers.written_at < $5
    RETURNING batch
"""
"""Returns no row while the signature of another server is valid."""
STOP_CLEANING: Final = "DELETE FROM writers WHERE namespace = $1 AND writer = $2 AND batch = $3"

EXPIRED: Final = " UNION ALL ".join(
    f"""(
        SELECT namespace, '{kind.name}', {table.name_column} FROM {table.name}
        WHERE expires_at <= coalesce($2::timestamptz, now()) ORDER BY expires_at LIMIT $1
    )"""
    for kind, table in TABLES.items()
)
"""limit, clock. At most `limit` names of each kind in all namespaces, one kind after the other."""
