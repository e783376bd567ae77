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

-- name: postgres.last_ticked
-- Give the host that ticked last, and its release.
SELECT host, release FROM hosts ORDER BY last_tick_at DESC NULLS LAST LIMIT 1;

-- name: postgres.begin_writing
-- Begin what others see whole or not at all, and wait for the scope's writer before us: its lease's row is the lock of all
-- that is written. A writer that pauses is ended by the server, so that nobody waits for it for long.
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL idle_in_transaction_session_timeout = :idle;
SET LOCAL lock_timeout = :wait;
SET LOCAL statement_timeout = :work;
SELECT holder, epoch, (SELECT max(version) FROM kloros_schema) AS version FROM leases WHERE scope = :scope FOR UPDATE;

-- name: postgres.begin_looking
-- Begin to look at one moment, which keeps nobody from writing.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL idle_in_transaction_session_timeout = :idle;
SET LOCAL statement_timeout = :work;

-- name: postgres.scopes
-- Give the scope whose database this is, none when it is nobody's yet; and whether this host has ticked in it.
SELECT scope, EXISTS (SELECT FROM ticks WHERE host = :here) AS known FROM leases ORDER BY scope;

-- name: postgres.give_to_scope
-- Give the database to a scope, unless it has been given already: two of them can't do so at once.
LOCK TABLE leases IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO leases (scope) SELECT :scope WHERE NOT EXISTS (SELECT FROM leases);

-- name: postgres.filled
-- Say whether anybody has ticked in the scope.
SELECT EXISTS (SELECT FROM ticks) OR EXISTS (SELECT FROM cycles) AS filled;

-- name: postgres.join_facts
-- Give each fact that was this host's to whom such facts belong.
UPDATE facts SET host = kloros_fact_host(name, :here) WHERE host <> kloros_fact_host(name, :here);

-- name: postgres.join_cycles
-- Note where the cycles' folders lie.
UPDATE cycles SET host = :here WHERE host = '' AND state <> 'queued';

-- name: postgres.join_baseline_files
-- Note which versions' files are in place on this host, and which retention let go (a JSON list of [version, retired_at]).
INSERT INTO baseline_files (host, version, retired_at)
SELECT :here, CAST(f ->> 0 AS BIGINT), f ->> 1 FROM json_array_elements(CAST(:files AS JSON)) AS f;

-- name: postgres.join_escrow_files
-- Note which entries' files on this host say what the rows say (a JSON list).
INSERT INTO escrow_files (host, entry, status)
SELECT :here, entry, status FROM escrow WHERE entry = ANY (ARRAY(SELECT json_array_elements_text(CAST(:entries AS JSON))));

-- name: postgres.join_promotions
-- Name promotions as the mirror of a scope does: by whose they are.
UPDATE promotions SET stem = :here || '@' || stem;

-- name: postgres.join_acks
-- Name acks of an older form so.
UPDATE legacy_acks SET file_name = :here || '@' || file_name;

-- name: postgres.join_escrow
-- Name the promotions so that wait for a person, or did.
UPDATE escrow SET stem = :here || '@' || stem WHERE stem <> '';

-- name: postgres.join_intents
-- Name intents so.
UPDATE intents SET name = :here || '@' || name;

-- name: postgres.join_origins
-- Name the promotions so that cycles have tried: what is parked holds their folders (a JSON list of [cycle, origin]).
UPDATE cycles SET origin = told ->> 1 FROM json_array_elements(CAST(:origins AS JSON)) AS told
WHERE cycle = CAST(told ->> 0 AS BIGINT);
