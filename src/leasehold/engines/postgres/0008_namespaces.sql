-- Version 8: namespaces beside `default`, what they may hold and what they hold.
--
-- Servers of the version before go on afterwards. They know `default` only, and do not count: `summed_to` shows that.
ALTER TABLE head
    ADD COLUMN created_at timestamptz,            -- NULL until the first server of this version has come
    ADD COLUMN deleted_at timestamptz,            -- the row stays, so that no revision is given out again
    ADD COLUMN max_entries bigint,                -- the quota; NULL: as much as there is room for
    ADD COLUMN max_bytes bigint,
    ADD COLUMN entries bigint NOT NULL DEFAULT 0, -- what the commits after `summed_from` have added; see
    ADD COLUMN bytes bigint NOT NULL DEFAULT 0,   -- namespace_statements.py
    ADD COLUMN summed_from bigint,                -- 0: `entries` and `bytes` are all there is
    ADD COLUMN summed_to bigint;                  -- not the head: a server of the version before has committed since
