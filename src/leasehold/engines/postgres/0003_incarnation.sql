-- Version 3: what tells this store from all others, and from itself before it was restored; part of each ETag.
--
-- NULL until the first server of this version has come: servers of the version before make heads without it.
ALTER TABLE head ADD COLUMN incarnation text;
