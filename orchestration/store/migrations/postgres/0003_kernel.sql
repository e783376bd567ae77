-- What ticks remember, for all hosts of one scope. Tables and columns as in ../0001_initial.sql to ../0015_hosts.sql, where their
-- words are explained; here only what is different, and whose each table is.
--
-- Whoever leads decides, and must decide from what the leader before knew. So whatever a decision rests on is the scope's, and
-- what only describes one machine (its files, its clock, its health) is that host's, named in a column `host`:
--
--   the scope's   cycles, products, phase_dates, phase_results, promotions, legacy_acks, intents, baseline_versions,
--                 baseline_verdicts, escrow, observer_events, sightings, slurm_jobs, pins
--   a host's      ticks, counters, conditions, iterations, bundles, federations, baseline_files, escrow_files
--   both          facts, see kloros_fact_host
--
-- `cycles.host` is where a cycle's folder, and what keeps it running, lies: that host reaps, packs, copies and prunes it.
-- Numbers of cycles, ticks, iterations and events are the highest so far and one: two transactions that write never overlap,
-- for each holds its scope's row of `leases` until its end (store/postgres_database.py).
-- Text is compared by bytes, as SQLite does. Instants are text (store/instants.py), by the clock of the host that wrote them,
-- but those of `leases`, `hosts` and `shared_files`, which are the server's: on these rests who leads and who is silent.

-- ── Functions ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

-- A part of a JSON object as text, as SQLite's json_extract gives it. PostgreSQL refuses to read \u0000 and halves of surrogate
-- pairs, and what programs say may have them: such parts are read as U+FFFD, for no tick may fail of a program's words.
CREATE FUNCTION kloros_careful(document text, path text[]) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN document::json #>> path;
EXCEPTION WHEN untranslatable_character OR invalid_text_representation THEN
    RETURN regexp_replace(document, '\\u(0000|d[89a-f][0-9a-f]{2})', '\\ufffd', 'gi')::json #>> path;
END $$;
CREATE FUNCTION kloros_part(document text, VARIADIC path text[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN document ~* '\\u(0000|d[89a-f])' THEN kloros_careful(document, path) ELSE document::json #>> path END
$$;

-- A JSON object without some of its names, as SQLite's json_remove.
CREATE FUNCTION kloros_without(document text, VARIADIC names text[]) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (SELECT json_object_agg(key, value) FROM json_each(document::json) WHERE key <> ALL (names))::text;
EXCEPTION WHEN untranslatable_character OR invalid_text_representation THEN
    RETURN (SELECT json_object_agg(key, value)
            FROM json_each(regexp_replace(document, '\\u(0000|d[89a-f][0-9a-f]{2})', '\\ufffd', 'gi')::json)
            WHERE key <> ALL (names))::text;
END $$;

-- The host that a fact is kept for: '' for the scope's.
--   phase.accounted_through, phase.hints.*, phase.groups.*   scope: one PHASE for a local date, whoever leads
--   observer.due                                             scope: a new leader asks the rules when the former would have
--   promotions.left                                          scope: what was told of the leader's mirror is not told again
--   observer.untold                                          host: since when *its* heartbeat files can't be told
--   locks.unreadable, litter.clean, expiry.next              host: its folders
--   retention.held                                           host: of the cycles on its disk; each host prunes its own
--   federation.origin                                        host: under which name it enters its bundles in the index
--   textfile.fault, notices.*, heartbeat.fault               host: its metrics, its notifier
--   bridge.*, wake.*                                         host: what its server and its supervisor told last
CREATE FUNCTION kloros_fact_host(name text, here text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN name = 'observer.untold' THEN here
        WHEN split_part(name, '.', 1) IN ('locks', 'litter', 'expiry', 'retention', 'federation', 'textfile', 'notices',
                                          'heartbeat', 'bridge', 'wake') THEN here
        ELSE '' END
$$;

-- An instant as the store writes it, in milliseconds since 1970.
CREATE FUNCTION kloros_milliseconds(instant text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT floor(extract(epoch FROM make_timestamp(
        substr(instant, 1, 4)::int, substr(instant, 6, 2)::int, substr(instant, 9, 2)::int,
        substr(instant, 12, 2)::int, substr(instant, 15, 2)::int, substr(instant, 18, 9)::double precision)) * 1000)::bigint
$$;

-- Seconds that something took, to the millisecond.
CREATE FUNCTION kloros_seconds(began text, ended text) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (kloros_milliseconds(ended) - kloros_milliseconds(began)) / 1000::double precision
$$;

-- An instant of the server's as the store writes instants.
CREATE FUNCTION kloros_instant(instant timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_char(instant AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- ── Who decides, who takes part, what they share ─────────────────────────────────────────────────────────────────────────────

CREATE TABLE leases (
    scope         TEXT COLLATE "C" PRIMARY KEY,
    holder        TEXT COLLATE "C" NOT NULL DEFAULT '',   -- '': nobody
    epoch         BIGINT           NOT NULL DEFAULT 0,    -- rises with every change of holder
    since         TIMESTAMPTZ,                            -- when this holder took it
    renewed_at    TIMESTAMPTZ,
    expires_at    TIMESTAMPTZ,
    pinned_to     TEXT COLLATE "C" NOT NULL DEFAULT '',   -- the one host that may have it; '' for any
    yielded_by    TEXT COLLATE "C" NOT NULL DEFAULT '',   -- who gave it back, and until when leaves it to others
    yielded_until TIMESTAMPTZ
) WITH (fillfactor = 50);   -- written anew with every tick

CREATE TABLE hosts (
    host                 TEXT COLLATE "C" PRIMARY KEY,
    machine_id           TEXT COLLATE "C" NOT NULL,
    boot_id              TEXT COLLATE "C" NOT NULL DEFAULT '',
    boot_before          TEXT COLLATE "C" NOT NULL DEFAULT '',          -- the boot that ticked before this one
    release              TEXT COLLATE "C" NOT NULL DEFAULT '',
    first_seen_at        TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    last_tick_at         TIMESTAMPTZ,
    last_tick_exit       BIGINT,
    role                 TEXT COLLATE "C" NOT NULL DEFAULT 'standby',   -- leader, standby: in its last tick
    clock_offset_seconds DOUBLE PRECISION,                              -- its clock less the server's
    to_reap              TEXT COLLATE "C" NOT NULL DEFAULT '[]'         -- JSON list: tokens of its cycles that ended without it
) WITH (fillfactor = 50);

-- Files of hosts that others of the scope need, and what is on its way back to them (scope/sharing.py has the words).
CREATE TABLE shared_files (
    host        TEXT COLLATE "C" NOT NULL,              -- in whose folder it lies, or is to lie
    folder      TEXT COLLATE "C" NOT NULL CHECK (folder IN ('promotions', 'acks', 'intents', 'cycles')),
    name        TEXT COLLATE "C" NOT NULL,
    state       TEXT COLLATE "C" NOT NULL CHECK (state IN ('there', 'given', 'done', 'filed')),
    mark        TEXT COLLATE "C" NOT NULL,              -- the file's identity on its host, '' before it is there
    sha256      TEXT COLLATE "C" NOT NULL,              -- of the content
    content     BYTEA            NOT NULL,
    stand_in    TEXT COLLATE "C" NOT NULL DEFAULT '',   -- why there is no content: it can't be read there
    content_sha TEXT COLLATE "C" NOT NULL DEFAULT '',   -- intents: of what it says, as in intents.content_sha
    changed_at  DOUBLE PRECISION NOT NULL,              -- seconds since 1970, by its host's file system
    owner       TEXT COLLATE "C" NOT NULL DEFAULT '',   -- promotions: the OS user whose file it is
    filed_as    TEXT COLLATE "C" NOT NULL DEFAULT '',   -- intents: the folder below processed/ it is to go to …
    decided_at  TEXT COLLATE "C" NOT NULL DEFAULT '',   -- … as in intents
    intent_type TEXT COLLATE "C" NOT NULL DEFAULT '',
    shared_at   TIMESTAMPTZ      NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (host, folder, name)
);

-- Another one after every change of shared_files. No number: after a failover that lost commits it would come again.
CREATE TABLE shared_revision (
    revision  TEXT COLLATE "C" NOT NULL
) WITH (fillfactor = 50);
INSERT INTO shared_revision (revision) VALUES (gen_random_uuid());
CREATE FUNCTION shared_files_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM changed) THEN
        UPDATE shared_revision SET revision = gen_random_uuid();
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER shared_files_inserted AFTER INSERT ON shared_files REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION shared_files_changed();
CREATE TRIGGER shared_files_updated AFTER UPDATE ON shared_files REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION shared_files_changed();
CREATE TRIGGER shared_files_deleted AFTER DELETE ON shared_files REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION shared_files_changed();

-- ── Ticks ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE ticks (
    tick        BIGINT           PRIMARY KEY,         -- across all hosts
    tick_id     TEXT COLLATE "C" NOT NULL UNIQUE,
    started_at  TEXT COLLATE "C" NOT NULL,
    ended_at    TEXT COLLATE "C" NOT NULL,
    boot_id     TEXT COLLATE "C" NOT NULL,
    decision    TEXT COLLATE "C" NOT NULL,
    exit_code   BIGINT           NOT NULL,
    cycle       BIGINT,
    blocker     TEXT COLLATE "C",
    findings    TEXT COLLATE "C" NOT NULL,
    host        TEXT COLLATE "C" NOT NULL,
    epoch       BIGINT                                -- of the lease, if this host held it then; NULL: a standby's
);
CREATE INDEX ticks_by_time      ON ticks (started_at);
CREATE INDEX ticks_by_host      ON ticks (host, tick);
CREATE INDEX ticks_by_host_time ON ticks (host, started_at);
CREATE INDEX ticks_led          ON ticks (started_at) WHERE epoch IS NOT NULL;

-- ── Cycles ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE cycles (
    cycle             BIGINT           PRIMARY KEY,
    job               TEXT COLLATE "C" NOT NULL,
    state             TEXT COLLATE "C" NOT NULL,
    token             TEXT COLLATE "C" NOT NULL UNIQUE,
    cause             TEXT COLLATE "C" NOT NULL,
    origin            TEXT COLLATE "C" NOT NULL,
    command           TEXT COLLATE "C" NOT NULL,
    working_dir       TEXT COLLATE "C" NOT NULL DEFAULT '',
    timeout_seconds   DOUBLE PRECISION NOT NULL,
    phase_date        TEXT COLLATE "C",
    queued_at         TEXT COLLATE "C" NOT NULL,
    started_at        TEXT COLLATE "C",
    ended_at          TEXT COLLATE "C",
    settled_at        TEXT COLLATE "C",
    cancel_asked_at   TEXT COLLATE "C",
    runner            TEXT COLLATE "C",
    result            TEXT COLLATE "C",
    pruned_at         TEXT COLLATE "C",
    baseline_began    BIGINT,                         -- version whose files were in force on the host that claimed it
    baseline_ended    BIGINT,
    executor          TEXT COLLATE "C" NOT NULL DEFAULT 'local',
    hosts             TEXT COLLATE "C" NOT NULL DEFAULT '',
    host              TEXT COLLATE "C" NOT NULL DEFAULT ''
);
CREATE INDEX cycles_active       ON cycles (cycle) WHERE state IN ('queued', 'running');
CREATE INDEX cycles_unsettled    ON cycles (cycle) WHERE settled_at IS NULL;
CREATE INDEX cycles_by_cause     ON cycles (job, cause, cycle);
CREATE INDEX cycles_succeeded    ON cycles (job, cycle) WHERE state = 'succeeded';
CREATE INDEX cycles_by_date      ON cycles (phase_date) WHERE phase_date IS NOT NULL;
CREATE INDEX cycles_on_disk      ON cycles (host, ended_at) WHERE pruned_at IS NULL AND settled_at IS NOT NULL;
CREATE INDEX cycles_by_job       ON cycles (job, cycle);
CREATE INDEX cycles_lost         ON cycles (ended_at) WHERE state = 'lost';
CREATE INDEX cycles_by_start     ON cycles (started_at) WHERE started_at IS NOT NULL;
CREATE INDEX cycles_unsuccessful ON cycles (cycle) WHERE state IN ('failed', 'timed_out', 'lost');
CREATE INDEX cycles_listed       ON cycles (cycle, job, state);
CREATE INDEX cycles_by_duration  ON cycles (kloros_seconds(started_at, ended_at), cycle, job, state)
    WHERE state NOT IN ('queued', 'running', 'lost') AND started_at IS NOT NULL;

CREATE TABLE products (
    cycle        BIGINT PRIMARY KEY,
    environment  TEXT COLLATE "C",
    revision     TEXT COLLATE "C",
    files        TEXT COLLATE "C",
    omitted      BIGINT NOT NULL DEFAULT 0,
    telemetry    TEXT COLLATE "C"
);

CREATE TABLE slurm_jobs (
    cycle         BIGINT PRIMARY KEY,
    job_id        BIGINT,
    submitted_at  TEXT COLLATE "C",
    state         TEXT COLLATE "C" NOT NULL DEFAULT '',
    reason        TEXT COLLATE "C" NOT NULL DEFAULT '',
    nodes         TEXT COLLATE "C" NOT NULL DEFAULT '',
    gpus          TEXT COLLATE "C" NOT NULL DEFAULT '',
    missed_since  TEXT COLLATE "C"
);

CREATE TABLE pins (
    cycle      BIGINT PRIMARY KEY,
    reason     TEXT COLLATE "C" NOT NULL,
    pinned_by  TEXT COLLATE "C" NOT NULL,
    pinned_at  TEXT COLLATE "C" NOT NULL
);

CREATE TABLE bundles (
    cycle      BIGINT PRIMARY KEY,
    due_at     TEXT COLLATE "C" NOT NULL,
    failures   BIGINT           NOT NULL DEFAULT 0,
    error      TEXT COLLATE "C" NOT NULL DEFAULT '',
    sha256     TEXT COLLATE "C" NOT NULL DEFAULT '',
    size       BIGINT           NOT NULL DEFAULT 0,
    done_at    TEXT COLLATE "C",
    host       TEXT COLLATE "C" NOT NULL              -- the cycle's
);
CREATE INDEX bundles_pending ON bundles (host, due_at) WHERE done_at IS NULL;

CREATE TABLE federations (
    cycle      BIGINT PRIMARY KEY,
    asked_at   TEXT COLLATE "C" NOT NULL,
    due_at     TEXT COLLATE "C" NOT NULL,
    failures   BIGINT           NOT NULL DEFAULT 0,
    failed_at  TEXT COLLATE "C",
    error      TEXT COLLATE "C" NOT NULL DEFAULT '',
    sha256     TEXT COLLATE "C" NOT NULL DEFAULT '',
    size       BIGINT           NOT NULL DEFAULT 0,
    place      TEXT COLLATE "C" NOT NULL DEFAULT '',
    done_at    TEXT COLLATE "C",
    host       TEXT COLLATE "C" NOT NULL              -- the cycle's
);
CREATE INDEX federations_pending ON federations (host, due_at) WHERE done_at IS NULL;
CREATE INDEX federations_asked   ON federations (host, asked_at) WHERE done_at IS NULL;

-- ── What decisions rest on ───────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE phase_dates (
    local_date   TEXT COLLATE "C" PRIMARY KEY,
    result       TEXT COLLATE "C" NOT NULL,
    reason       TEXT COLLATE "C" NOT NULL,
    evidence     TEXT COLLATE "C" NOT NULL,
    cycle        BIGINT,
    opens_at     TEXT COLLATE "C" NOT NULL,
    closes_at    TEXT COLLATE "C" NOT NULL,
    recorded_at  TEXT COLLATE "C" NOT NULL
);

CREATE TABLE promotions (
    stem           TEXT COLLATE "C" PRIMARY KEY,
    promotion_id   TEXT COLLATE "C" NOT NULL,
    state          TEXT COLLATE "C" NOT NULL,
    failures       BIGINT           NOT NULL DEFAULT 0,
    fitness        DOUBLE PRECISION,
    reason         TEXT COLLATE "C" NOT NULL DEFAULT '',
    first_seen_at  TEXT COLLATE "C" NOT NULL,
    changed_at     TEXT COLLATE "C" NOT NULL,
    cycle          BIGINT
);
CREATE INDEX promotions_parked     ON promotions (stem) WHERE state = 'parked';
CREATE INDEX promotions_unacked    ON promotions (first_seen_at) WHERE state = 'unacked';
CREATE INDEX promotions_answered   ON promotions (changed_at) WHERE state IN ('accepted', 'rejected');
CREATE INDEX promotions_by_arrival ON promotions (first_seen_at);

CREATE TABLE legacy_acks (
    file_name     TEXT COLLATE "C" PRIMARY KEY,
    promotion_id  TEXT COLLATE "C" NOT NULL
);

CREATE TABLE intents (
    name         TEXT COLLATE "C" NOT NULL,
    content_sha  TEXT COLLATE "C" NOT NULL,
    intent_type  TEXT COLLATE "C" NOT NULL,
    priority     BIGINT           NOT NULL,
    status       TEXT COLLATE "C" NOT NULL,
    reason       TEXT COLLATE "C" NOT NULL DEFAULT '',
    seen_at      TEXT COLLATE "C" NOT NULL,
    decided_at   TEXT COLLATE "C" NOT NULL,
    cycle        BIGINT,
    filed        BIGINT           NOT NULL DEFAULT 0,
    PRIMARY KEY (name, content_sha, decided_at)
);
CREATE INDEX intents_by_content ON intents (content_sha, decided_at);
CREATE INDEX intents_unfiled    ON intents (name) WHERE filed = 0;
CREATE INDEX intents_overflowed ON intents (decided_at) WHERE status = 'queue_overflow';
CREATE INDEX intents_decided    ON intents (decided_at) WHERE decided_at <> '';
CREATE INDEX intents_by_age     ON intents (decided_at) WHERE filed = 1;

CREATE TABLE baseline_versions (
    version       BIGINT           PRIMARY KEY,
    sha256        TEXT COLLATE "C" NOT NULL,
    previous_sha  TEXT COLLATE "C" NOT NULL UNIQUE,
    ts            TEXT COLLATE "C" NOT NULL,
    actor         TEXT COLLATE "C" NOT NULL,
    kind          TEXT COLLATE "C" NOT NULL,
    reason        TEXT COLLATE "C" NOT NULL,
    cycle         BIGINT,
    promotion_ids TEXT COLLATE "C" NOT NULL,
    parameters    TEXT COLLATE "C" NOT NULL,
    fitness       DOUBLE PRECISION
);
-- What baseline_versions.written and retired_at tell in SQLite, where there is one host.
CREATE TABLE baseline_files (
    host        TEXT COLLATE "C" NOT NULL,
    version     BIGINT           NOT NULL,
    retired_at  TEXT COLLATE "C",
    PRIMARY KEY (host, version)
);

CREATE TABLE phase_results (
    cycle        BIGINT           PRIMARY KEY,
    version      BIGINT,
    phase_type   TEXT COLLATE "C" NOT NULL,
    measure      TEXT COLLATE "C" NOT NULL,
    result       DOUBLE PRECISION NOT NULL,
    ended_at     TEXT COLLATE "C" NOT NULL
);
CREATE INDEX phase_results_by_version ON phase_results (version, cycle);

CREATE TABLE baseline_verdicts (
    version      BIGINT           PRIMARY KEY,
    verdict      TEXT COLLATE "C" NOT NULL,
    before       TEXT COLLATE "C" NOT NULL,
    after        TEXT COLLATE "C" NOT NULL,
    phases       TEXT COLLATE "C" NOT NULL,
    change       DOUBLE PRECISION NOT NULL,
    reason       TEXT COLLATE "C" NOT NULL,
    cycle        BIGINT           NOT NULL,
    made         BIGINT,
    entry        TEXT COLLATE "C",
    decided_at   TEXT COLLATE "C" NOT NULL
);

CREATE TABLE escrow (
    entry        TEXT COLLATE "C" PRIMARY KEY,
    kind         TEXT COLLATE "C" NOT NULL,
    stem         TEXT COLLATE "C" NOT NULL DEFAULT '',
    promotion_id TEXT COLLATE "C" NOT NULL DEFAULT '',
    target       BIGINT,
    against      BIGINT,
    cycle        BIGINT,
    rule         TEXT COLLATE "C" NOT NULL,
    changes      TEXT COLLATE "C" NOT NULL,
    before       TEXT COLLATE "C" NOT NULL,
    fitness      DOUBLE PRECISION,
    evidence     TEXT COLLATE "C" NOT NULL,
    emitted_by   TEXT COLLATE "C" NOT NULL DEFAULT '',
    four_eyes    BIGINT           NOT NULL,
    status       TEXT COLLATE "C" NOT NULL,
    created_at   TEXT COLLATE "C" NOT NULL,
    expires_at   TEXT COLLATE "C",
    reviewed_at  TEXT COLLATE "C",
    reviewed_by  TEXT COLLATE "C",
    reason       TEXT COLLATE "C" NOT NULL DEFAULT '',
    version      BIGINT
);
CREATE INDEX escrow_pending ON escrow (expires_at) WHERE status = 'pending_review';
-- What escrow.written tells in SQLite: which status a host's file of the entry says.
CREATE TABLE escrow_files (
    host    TEXT COLLATE "C" NOT NULL,
    entry   TEXT COLLATE "C" NOT NULL,
    status  TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (host, entry)
);

CREATE TABLE observer_events (
    event        BIGINT           PRIMARY KEY,
    rule         TEXT COLLATE "C" NOT NULL,
    subject      TEXT COLLATE "C" NOT NULL DEFAULT '',
    at           TEXT COLLATE "C" NOT NULL,
    evidence     TEXT COLLATE "C" NOT NULL,
    intent       TEXT COLLATE "C" NOT NULL,
    content      TEXT COLLATE "C" NOT NULL,
    written      BIGINT           NOT NULL DEFAULT 0
);
CREATE TABLE sightings (
    cycle        BIGINT           NOT NULL,
    rule         TEXT COLLATE "C" NOT NULL,
    at           TEXT COLLATE "C" NOT NULL,
    number       BIGINT           NOT NULL,
    lines        TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (cycle, rule)
);

CREATE TABLE facts (
    host   TEXT COLLATE "C" NOT NULL,                 -- '' for the scope's
    name   TEXT COLLATE "C" NOT NULL,
    value  TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (host, name)
) WITH (fillfactor = 50);

-- ── What one host tells of itself ────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE counters (
    host    TEXT COLLATE "C" NOT NULL,
    name    TEXT COLLATE "C" NOT NULL,
    labels  TEXT COLLATE "C" NOT NULL,
    value   DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (host, name, labels)
) WITH (fillfactor = 50);   -- a third of the rows are written anew with every tick: room for that on their own pages

CREATE TABLE conditions (
    host       TEXT COLLATE "C" NOT NULL,
    condition  TEXT COLLATE "C" NOT NULL,
    since      TEXT COLLATE "C" NOT NULL,
    evidence   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (host, condition)
);

-- Each host's continuous loop, with a history file of its own.
CREATE TABLE iterations (
    iteration     BIGINT           PRIMARY KEY,       -- across all hosts
    token         TEXT COLLATE "C" NOT NULL UNIQUE,
    started_at    TEXT COLLATE "C" NOT NULL,
    plan          TEXT COLLATE "C",
    cycle         BIGINT,
    status        TEXT COLLATE "C",
    ended_at      TEXT COLLATE "C",
    next_run_at   TEXT COLLATE "C",
    archive_new   BIGINT,
    history_path  TEXT COLLATE "C" NOT NULL,
    line          TEXT COLLATE "C",
    written       BIGINT           NOT NULL DEFAULT 0,
    host          TEXT COLLATE "C" NOT NULL
);
CREATE INDEX iterations_unwritten ON iterations (host, iteration) WHERE written = 0;
CREATE INDEX iterations_by_status ON iterations (host, status, iteration);
CREATE INDEX iterations_by_host   ON iterations (host, iteration);
