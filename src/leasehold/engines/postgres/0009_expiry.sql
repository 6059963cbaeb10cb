-- Version 9: one query finds what has expired in all namespaces.
--
-- With this lock no batch is under way, and none waits for what is locked below while it holds what is needed there.
-- Readers wait for the last step only.
LOCK TABLE head IN EXCLUSIVE MODE;

CREATE INDEX IF NOT EXISTS data_expiry ON data (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS locks_expiry ON locks (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS receipts_expiry ON receipts (expires_at) WHERE expires_at IS NOT NULL;
DROP INDEX data_expires_at;
DROP INDEX locks_expires_at;
DROP INDEX receipts_expires_at;
