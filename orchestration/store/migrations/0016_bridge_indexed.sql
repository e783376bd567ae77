-- The words of messages are indexed after their commit, many at once (bridge/store/sqlite_words.py): those of messages up to
-- this number are in bridge_words. One row.
CREATE TABLE bridge_indexed (number INTEGER NOT NULL);
INSERT INTO bridge_indexed SELECT coalesce(max(number), 0) FROM bridge_messages;

-- No query takes it, and every commit wrote to it.
DROP INDEX bridge_audit_by_workspace;
