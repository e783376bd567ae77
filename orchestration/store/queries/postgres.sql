-- What PostgreSQL is asked when its tables are brought up to this program.

-- name: postgres.lock_schema
-- Wait for whoever migrates, and keep others from it until this transaction ends.
SELECT pg_advisory_xact_lock(:lock);

-- name: postgres.make_schema
-- Make the table that tells which migrations were applied.
CREATE TABLE IF NOT EXISTS kloros_schema (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());

-- name: postgres.schema_version
-- Give the last migration that was applied.
SELECT coalesce(max(version), 0) AS version FROM kloros_schema;

-- name: postgres.note_version
-- Note a migration.
INSERT INTO kloros_schema (version) VALUES (:version);
