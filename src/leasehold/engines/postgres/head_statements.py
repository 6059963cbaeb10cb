"""The statements about the head of a namespace, the transactions that lock it, and the servers that do them.

The first parameter ($1), if there is one, is the namespace, or several of them. Statements that change data are
deterministic: a time that they need is a parameter, which a SELECT has read before (`CLOCK`).
"""

from typing import Final

# Transactions -----------------------------------------------------------------------------------------------------

BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
COMMIT: Final = "COMMIT"
SHOW_WARNINGS: Final = "SET LOCAL client_min_messages = warning"
"""Directly before COMMIT, so that the warnings of COMMIT are received, and no others (`links.SESSION`)."""
ROLLBACK: Final = "ROLLBACK"
BEGIN_MOMENT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
NO_IDLE_TIMEOUT: Final = "SET idle_in_transaction_session_timeout = 0"
"""For a backup, whose reader may be slow, and for a restore."""
CLOCK: Final = "SELECT clock_timestamp()"

# The head ---------------------------------------------------------------------------------------------------------

HEAD: Final = "SELECT revision, incarnation, created_at, deleted_at FROM head WHERE namespace = $1"
HEADS: Final = (
    "SELECT namespace, revision, incarnation, deleted_at IS NOT NULL FROM head WHERE namespace = ANY($1::text[])"
)
"""namespaces."""
ADD_HEAD: Final = """
    INSERT INTO head (namespace, revision, compacted_revision, summed_from, summed_to) VALUES ($1, 0, 0, 0, 0)
    ON CONFLICT DO NOTHING
"""
COMPLETE_HEAD: Final = """
    UPDATE head SET incarnation = coalesce(incarnation, $2), created_at = coalesce(created_at, $3)
    WHERE namespace = $1 AND (incarnation IS NULL OR created_at IS NULL)
"""
"""incarnation, time. Only the first server sets them. The others wait for the row and find that it has them."""
ADVANCE_HEAD: Final = """
    UPDATE head SET revision = $3, incarnation = $4, summed_to = CASE WHEN summed_to = revision THEN $3::bigint END
    WHERE namespace = $1 AND revision < $2 RETURNING incarnation
"""
"""Does nothing if the head is at least `$2`, even if another server has just moved it there."""
TOUCH_HEAD: Final = "UPDATE head SET revision = revision WHERE namespace = $1"
"""Changes nothing, but its commit is as durable as any other."""
LOCK_HEAD: Final = "SELECT revision FROM head WHERE namespace = $1 FOR UPDATE OFFSET 1"
"""Returns no row, so that it can be sent ahead of another statement: OFFSET skips the row after it is locked. What the
next statement reads is what was committed when this one got the lock."""
MOVE_HEAD: Final = """
    UPDATE head SET revision = $2, compacted_revision = $2, incarnation = $3,
        summed_to = CASE WHEN summed_to = revision THEN $2::bigint END
    WHERE namespace = $1
"""
"""Compacts all changes, so a reader that has the changes up to an earlier revision must read everything again."""

# The servers ------------------------------------------------------------------------------------------------------

CHANNEL: Final = "leasehold"
"""On which servers tell each other what they commit, and which namespaces they delete."""
TELL_COMMITTED: Final = (
    f"SELECT pg_notify('{CHANNEL}', current_schema() || '/' || told) FROM unnest($1::text[]) AS told"
)
"""The texts of `notifications.texts`."""
SCHEMA_NAME: Final = "SELECT current_schema()"

_USERS: Final = "hashtextextended(current_schema() || '/' || $1::text, 0)"
USE: Final = f"SELECT pg_try_advisory_lock_shared({_USERS})"
"""Returns false while `leasehold move` reads or fills the store. Otherwise it cannot, until the session ends."""
KEEP_SERVERS_AWAY: Final = f"SELECT pg_try_advisory_xact_lock({_USERS})"
"""For a move, until its transaction ends. Returns false while a server uses the store, or another move."""

LAST_BATCH: Final = "SELECT batch FROM writers WHERE namespace = $1 AND writer = $2"
"""Lock the head first: then the transaction that may have written the batch has ended."""
FORGET_WRITERS: Final = "DELETE FROM writers WHERE namespace = $1 AND written_at < $2"
