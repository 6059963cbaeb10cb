"""Functions in the place of those of Citus, which no package has.

They note how they are called. So a test with them shows which steps are done, and in which order. It does not show what
Citus does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from databases import Database

from leasehold.engines.postgres import distribution

FUNCTIONS = """
    CREATE TABLE pg_dist_partition (logicalrelid oid);
    CREATE TABLE calls (number serial, call text, in_use bool);
    CREATE FUNCTION noted(text) RETURNS void LANGUAGE sql AS $$
        INSERT INTO calls (call, in_use) SELECT $1, EXISTS (
            SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND pid = pg_backend_pid()
        ) $$;
    CREATE FUNCTION citus_is_coordinator() RETURNS bool LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION create_distributed_table(name regclass, by text, colocate_with text DEFAULT 'default')
    RETURNS void LANGUAGE sql AS $$
        INSERT INTO pg_dist_partition VALUES (name); SELECT noted(concat_ws(' ', name::text, by, colocate_with)) $$;
    CREATE FUNCTION create_reference_table(name regclass) RETURNS void LANGUAGE sql AS $$
        INSERT INTO pg_dist_partition VALUES (name); SELECT noted(name || ' everywhere') $$;
    CREATE FUNCTION truncate_local_data_after_distributing_table(name regclass) RETURNS void LANGUAGE sql AS $$
        SELECT noted(name || ' local rows removed') $$;
"""


@contextmanager
def functions_of_citus(database: Database) -> Iterator[None]:
    """Make the functions in an empty schema. `calls` has the calls in their order. `distribute` accepts it."""
    database.execute(FUNCTIONS)
    # An extension that every database has.
    with patch.object(distribution, "DISTRIBUTING_EXTENSION", "plpgsql"):
        yield
