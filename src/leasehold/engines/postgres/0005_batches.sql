-- Version 5: the names that each commit changed are in a table of their own, and no index contains a revision.
--
-- PostgreSQL rewrites a row without touching the indexes (HOT) only if no column of an index changes. With the revision
-- in an index, each write of an entry made a new item in every index, twice as much WAL, and work for VACUUM.
--
-- Servers of the version before go on afterwards, and do not write this table. `complete_from` shows that.
-- The lock: no batch is under way, and readers of `head` do not wait.
LOCK TABLE head IN EXCLUSIVE MODE;

CREATE TABLE batches (
    namespace text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,            -- the head after the commit
    complete_from bigint NOT NULL,       -- the table has all changes after this revision, up to this commit
    names text[] COLLATE "C" NOT NULL,   -- of the records of the kind that it wrote or removed
    PRIMARY KEY (namespace, kind, revision)
);
DROP INDEX data_revision;
DROP INDEX locks_revision;
