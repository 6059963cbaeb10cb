-- Version 2: what a lease needs beside version 1, which never wrote one.

ALTER TABLE locks
    ADD COLUMN revision bigint NOT NULL, -- of the last change; `token` is that of the acquisition
    ADD COLUMN ttl bigint NOT NULL,      -- microseconds
    ALTER COLUMN owner TYPE text,        -- JSON as it was given: nothing looks inside, and jsonb would change some of it
    ALTER COLUMN owner SET NOT NULL;

-- A fenced write gives the lease_id alone.
CREATE INDEX locks_lease_id ON locks (namespace, lease_id);
