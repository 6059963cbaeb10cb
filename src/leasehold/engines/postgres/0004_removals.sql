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

-- The changes after a revision.
CREATE INDEX locks_revision ON locks (namespace, revision);
