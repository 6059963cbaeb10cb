-- Version 4: removals of every kind, of which several may share a revision, and the last of each name only.
--
-- Each batch locks the head's row first. With this lock no batch is under way, and none waits for what is locked below
-- while it holds what is needed there. Servers of the version before go on afterwards: they insert without a kind.
LOCK TABLE head IN EXCLUSIVE MODE;

ALTER TABLE deletions ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'entry';
ALTER TABLE deletions DROP CONSTRAINT deletions_pkey;
ALTER TABLE deletions ADD PRIMARY KEY (namespace, kind, revision, key);
CREATE INDEX deletions_key ON deletions (namespace, kind, key);
DELETE FROM deletions AS earlier USING deletions AS later
    WHERE later.namespace = earlier.namespace AND later.kind = earlier.kind AND later.key = earlier.key
    AND later.revision > earlier.revision;

-- The conditions always hold. They keep the planner from an index where another column is asked for: while the table is
-- empty all plans cost the same, and one that was made then would read all locks of the namespace later.
CREATE INDEX locks_revision ON locks (namespace, revision) WHERE revision IS NOT NULL;
DROP INDEX locks_expires_at, locks_lease_id;
CREATE INDEX locks_expires_at ON locks (namespace, expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX locks_lease_id ON locks (namespace, lease_id) WHERE lease_id IS NOT NULL;
