-- Version 1 of the tables. Never changed once released: what comes after it is a migration (schema.py).
--
-- Every key begins with a namespace, so that the tables can be distributed by it. Keys are compared by their bytes.
-- No statement that changes data reads a clock: times go in as parameters.

CREATE TABLE head (
    namespace text COLLATE "C" PRIMARY KEY,
    revision bigint NOT NULL,            -- of the last commit; its row lock orders the writers of all servers
    compacted_revision bigint NOT NULL   -- deletions up to here are no longer known
) WITH (fillfactor = 10);

CREATE TABLE data (
    namespace text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    data jsonb NOT NULL,
    exact text,                          -- the JSON text, where jsonb would change it
    revision bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (namespace, key)
);
CREATE INDEX data_revision ON data (namespace, revision);
CREATE INDEX data_expires_at ON data (namespace, expires_at) WHERE expires_at IS NOT NULL;

-- What a commit removed, so that others can be told. A key that was written again stays here until it is compacted.
CREATE TABLE deletions (
    namespace text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, revision)
);

-- The last batch of each server, so that it can tell whether a COMMIT whose answer was lost was done.
CREATE TABLE writers (
    namespace text COLLATE "C" NOT NULL,
    writer uuid NOT NULL,
    batch bigint NOT NULL,
    written_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, writer)
) WITH (fillfactor = 10);

CREATE TABLE locks (
    namespace text COLLATE "C" NOT NULL,
    lock_id text COLLATE "C" NOT NULL,
    locked_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    lease_id text NOT NULL,
    token bigint NOT NULL,
    holder text NOT NULL,
    owner jsonb,
    PRIMARY KEY (namespace, lock_id)
);
CREATE INDEX locks_expires_at ON locks (namespace, expires_at);
