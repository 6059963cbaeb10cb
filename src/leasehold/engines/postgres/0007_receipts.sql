-- Version 7: receipts of changes that were requested with an idempotency key.
--
-- Servers of the version before may go on: they neither write nor read this table.
CREATE TABLE receipts (
    namespace text COLLATE "C" NOT NULL,
    request text COLLATE "C" NOT NULL,   -- a digest of the caller and the key
    memo bytea NOT NULL,                 -- a digest of the request, and its outcome
    revision bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, request)
);
-- The condition always holds. It keeps the planner from this index where a request is asked for (0004_removals.sql).
CREATE INDEX receipts_expires_at ON receipts (namespace, expires_at) WHERE expires_at IS NOT NULL;
