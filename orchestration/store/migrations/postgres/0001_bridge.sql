-- The bridge: threads of agents, their messages and cursors, and the audit of all of it (bridge/state.py has the words).
-- Tables as in ../0012_bridge.sql. Functions do what one change after another would take many round trips for: the
-- server keeps their plans, so nothing need be prepared by a session, and a pooler between may hand out any of its own.

CREATE TABLE bridge_threads (
    thread_id     text        PRIMARY KEY,
    workspace_id  text        NOT NULL,
    title         text        NOT NULL,
    type          text        NOT NULL,
    status        text        NOT NULL,
    status_reason text        NOT NULL,
    created_by    text        NOT NULL,
    last_seq      bigint      NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    turns         bigint      NOT NULL,
    last_sender   text        NOT NULL,
    event_types   text        NOT NULL,
    rate_minute   bigint      NOT NULL,
    rate_posts    bigint      NOT NULL,
    rate_before   bigint      NOT NULL,
    links         bigint      NOT NULL,
    head          text        NOT NULL,
    version       bigint      NOT NULL
) WITH (fillfactor = 40);   -- a row is written anew with every message: room for that on its own page
CREATE INDEX bridge_threads_by_workspace ON bridge_threads (workspace_id, thread_id);

CREATE TABLE bridge_participants (
    thread_id     text        NOT NULL,
    agent_id      text        NOT NULL,
    role          text        NOT NULL,
    joined_at     timestamptz NOT NULL,
    last_read_seq bigint      NOT NULL,
    PRIMARY KEY (thread_id, agent_id)
) WITH (fillfactor = 70);
CREATE INDEX bridge_participants_by_agent ON bridge_participants (agent_id, thread_id);

CREATE TABLE bridge_messages (
    thread_id       text        NOT NULL,
    seq             bigint      NOT NULL,
    message_id      text        NOT NULL UNIQUE,
    sender          text        NOT NULL,
    kind            text        NOT NULL,
    body            text        NOT NULL,
    metadata        text        NOT NULL,
    in_reply_to     text,
    addressee       text,
    created_at      timestamptz NOT NULL,
    traceparent     text        NOT NULL,
    thread_status   text        NOT NULL,
    idempotency_key text,
    payload_sha256  text        NOT NULL,
    words           tsvector    NOT NULL,   -- as bridge/words.py finds them, not as PostgreSQL would
    PRIMARY KEY (thread_id, seq)
);
CREATE UNIQUE INDEX bridge_messages_by_key ON bridge_messages (thread_id, sender, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX bridge_messages_by_words ON bridge_messages USING gin (words);

CREATE TABLE bridge_findings (
    thread_id   text   NOT NULL,
    finding_id  text   NOT NULL,
    state       text   NOT NULL,
    reports     bigint NOT NULL,
    message_id  text   NOT NULL,
    reported_by text   NOT NULL,
    PRIMARY KEY (thread_id, finding_id)
);

CREATE TABLE bridge_rates (
    workspace_id text   NOT NULL,
    agent_id     text   NOT NULL,
    rate_minute  bigint NOT NULL,
    rate_posts   bigint NOT NULL,
    rate_before  bigint NOT NULL,
    PRIMARY KEY (workspace_id, agent_id)
) WITH (fillfactor = 40);

CREATE TABLE bridge_sessions (
    workspace_id    text        NOT NULL,
    agent_id        text        NOT NULL,
    session_id      text        NOT NULL,
    runtime         text        NOT NULL,
    management_mode text        NOT NULL,
    resumable       integer     NOT NULL,
    status          text        NOT NULL,
    heartbeat_at    timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, agent_id, session_id)
) WITH (fillfactor = 70);

CREATE TABLE bridge_triggers (
    trigger_id   text        PRIMARY KEY,
    thread_id    text        NOT NULL,
    target       text        NOT NULL,
    reason       text        NOT NULL,
    prompt       text        NOT NULL,
    requested_by text        NOT NULL,
    status       text        NOT NULL,
    created_at   timestamptz NOT NULL,
    traceparent  text        NOT NULL
);
CREATE INDEX bridge_triggers_by_thread ON bridge_triggers (thread_id, created_at);
CREATE INDEX bridge_triggers_queued ON bridge_triggers (created_at) WHERE status = 'queued';

CREATE TABLE bridge_revocations (
    token_id   text        PRIMARY KEY,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz NOT NULL,
    revoked_by text        NOT NULL
);

CREATE TABLE bridge_audit (
    entry        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain        text        NOT NULL,
    link         bigint      NOT NULL,
    at           timestamptz NOT NULL,
    workspace_id text        NOT NULL,
    actor        text        NOT NULL,
    role         text        NOT NULL,
    request_id   text        NOT NULL,
    operation    text        NOT NULL,
    thread_id    text,
    outcome      text        NOT NULL,
    rule         text        NOT NULL,
    state_before text,
    state_after  text,
    sha256       text        NOT NULL,
    UNIQUE (chain, link)
);
CREATE INDEX bridge_audit_by_workspace ON bridge_audit (workspace_id, entry);

CREATE TABLE bridge_chains (
    workspace_id text   PRIMARY KEY,
    links        bigint NOT NULL,
    head         text   NOT NULL
) WITH (fillfactor = 40);

-- Locks the threads that a batch is about, in the order of their ids, and returns what its plans may know. Each statement
-- sees what was committed when the locks were had. Whoever dies between this and the commit holds nobody up for long.
CREATE FUNCTION bridge_facts(wanted json) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    ids   text[] := ARRAY(SELECT json_array_elements_text(wanted->'threads'));
    facts json;
    more  json;
BEGIN
    PERFORM set_config('lock_timeout', '3s', true),
            set_config('idle_in_transaction_session_timeout', '10s', true),
            set_config('synchronous_commit', CASE current_setting('synchronous_commit')
                                             WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true);
    PERFORM FROM bridge_threads WHERE thread_id = ANY (ids) ORDER BY thread_id FOR UPDATE;
    SELECT json_build_object(
        'threads', (SELECT json_agg(t) FROM bridge_threads t WHERE t.thread_id = ANY (ids)),
        'members', (SELECT json_agg(p) FROM bridge_participants p WHERE p.thread_id = ANY (ids)),
        'rates',   (SELECT json_agg(r) FROM json_array_elements(wanted->'agents') a
                    JOIN bridge_rates r ON r.workspace_id = a->>0 AND r.agent_id = a->>1)
    ) INTO facts;
    IF wanted->'more' IS NULL THEN
        RETURN json_build_array(facts);
    END IF;
    SELECT json_build_object(
        'keys',     (SELECT json_agg(json_build_object('thread_id', m.thread_id, 'sender', m.sender,
                         'idempotency_key', m.idempotency_key, 'message_id', m.message_id, 'seq', m.seq,
                         'thread_status', m.thread_status, 'created_at', m.created_at,
                         'payload_sha256', m.payload_sha256))
                     FROM json_array_elements(wanted->'more'->'keys') k
                     JOIN bridge_messages m ON m.thread_id = k->>0 AND m.sender = k->>1
                         AND m.idempotency_key = k->>2 AND m.idempotency_key IS NOT NULL),
        'findings', (SELECT json_agg(f) FROM json_array_elements(wanted->'more'->'findings') k
                     JOIN bridge_findings f ON f.thread_id = k->>0 AND f.finding_id = k->>1),
        'replies',  (SELECT json_agg(json_build_array(m.message_id, m.thread_id))
                     FROM json_array_elements_text(wanted->'more'->'replies') k
                     JOIN bridge_messages m ON m.message_id = k),
        'sessions', (SELECT json_agg(s) FROM json_array_elements(wanted->'more'->'sessions') k
                     JOIN bridge_sessions s ON s.workspace_id = k->>0 AND s.agent_id = k->>1 AND s.session_id = k->>2)
    ) INTO more;
    RETURN json_build_array(facts, more);
END $$;

-- Locks the chains of workspaces, in their order, and returns their heads.
CREATE FUNCTION bridge_heads(workspaces json) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO bridge_chains SELECT w, 0, repeat('0', 64) FROM json_array_elements_text(workspaces) w ORDER BY w
    ON CONFLICT DO NOTHING;
    PERFORM FROM bridge_chains WHERE workspace_id IN (SELECT json_array_elements_text(workspaces))
    ORDER BY workspace_id FOR UPDATE;
    RETURN (SELECT json_agg(c) FROM bridge_chains c WHERE c.workspace_id IN (SELECT json_array_elements_text(workspaces)));
END $$;

-- One post, what it leaves of its thread, its row of the audit, and the minute in which it counts: each value once. All of
-- it happened at the same instant; the audit row is the last link of the thread's chain.
CREATE TYPE bridge_post AS (
    thread_id text, status text, status_reason text, updated_at timestamptz, turns bigint, last_sender text, event_types text,
    rate_minute bigint, rate_posts bigint, rate_before bigint, links bigint, head text, version bigint,
    seq bigint, message_id text, sender text, kind text, body text, metadata text, in_reply_to text, addressee text,
    traceparent text, thread_status text, idempotency_key text, payload_sha256 text, words tsvector,
    at timestamptz, workspace_id text, actor text, role text, request_id text, operation text, outcome text, rule text,
    state_before text, state_after text,
    minute bigint
);

-- Writes one post and no more, as `bridge_write` does, only quicker: a row costs less than JSON.
CREATE FUNCTION bridge_write_post(post bridge_post) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    counted json;
BEGIN
    -- An IF calls functions for less than PERFORM does.
    IF set_config('lock_timeout', '3s', true) IS NULL OR current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    UPDATE bridge_threads SET
        status = post.status, status_reason = post.status_reason, last_seq = post.seq, updated_at = post.updated_at,
        turns = post.turns, last_sender = post.last_sender, event_types = post.event_types,
        rate_minute = post.rate_minute, rate_posts = post.rate_posts, rate_before = post.rate_before,
        links = post.links, head = post.head, version = post.version
    WHERE thread_id = post.thread_id AND version = post.version - 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'planned on an older version' USING ERRCODE = 'KL001';
    END IF;
    INSERT INTO bridge_messages (thread_id, seq, message_id, sender, kind, body, metadata, in_reply_to, addressee, created_at,
                                 traceparent, thread_status, idempotency_key, payload_sha256, words)
    VALUES (post.thread_id, post.seq, post.message_id, post.sender, post.kind, post.body, post.metadata, post.in_reply_to,
            post.addressee, post.at, post.traceparent, post.thread_status, post.idempotency_key, post.payload_sha256,
            post.words);
    INSERT INTO bridge_audit (chain, link, at, workspace_id, actor, role, request_id, operation, thread_id, outcome, rule,
                              state_before, state_after, sha256)
    VALUES (post.thread_id, post.links, post.at, post.workspace_id, post.actor, post.role, post.request_id, post.operation,
            post.thread_id, post.outcome, post.rule, post.state_before, post.state_after, post.head);
    UPDATE bridge_rates AS known SET
        rate_minute = greatest(known.rate_minute, post.minute),
        rate_posts  = 1 + CASE WHEN known.rate_minute >= post.minute THEN known.rate_posts ELSE 0 END,
        rate_before = CASE WHEN known.rate_minute >= post.minute THEN known.rate_before
                           WHEN known.rate_minute = post.minute - 1 THEN known.rate_posts ELSE 0 END
    WHERE known.workspace_id = post.workspace_id AND known.agent_id = post.sender
    RETURNING json_build_array(json_build_array(
        known.workspace_id, known.agent_id, known.rate_minute, known.rate_posts, known.rate_before)) INTO counted;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'planned on a count of posts that is gone' USING ERRCODE = 'KL001';
    END IF;
    RETURN counted;
END $$;

-- Writes what a batch has changed: what most do first, the rest where there is any. Returns how often its agents posted.
-- Threads come in the order of their ids, each with the version after the one that was planned on: when another process
-- was faster, nothing is written (KL001), and the batch is planned again under lock.
CREATE FUNCTION bridge_write(threads json, posts json, audit json, rates json, rest json) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    row     record;
    counted json;
BEGIN
    PERFORM set_config('lock_timeout', '3s', true);
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    FOR row IN SELECT * FROM json_to_recordset(threads) AS t (
        thread_id text, status text, status_reason text, last_seq bigint, updated_at timestamptz, turns bigint,
        last_sender text, event_types text, rate_minute bigint, rate_posts bigint, rate_before bigint, links bigint,
        head text, version bigint)
    LOOP
        UPDATE bridge_threads SET
            status = row.status, status_reason = row.status_reason, last_seq = row.last_seq, updated_at = row.updated_at,
            turns = row.turns, last_sender = row.last_sender, event_types = row.event_types,
            rate_minute = row.rate_minute, rate_posts = row.rate_posts, rate_before = row.rate_before,
            links = row.links, head = row.head, version = row.version
        WHERE thread_id = row.thread_id AND version = row.version - 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'planned on an older version' USING ERRCODE = 'KL001';
        END IF;
    END LOOP;
    INSERT INTO bridge_messages
    SELECT thread_id, seq, message_id, sender, kind, body, metadata, in_reply_to, addressee, created_at, traceparent,
           thread_status, idempotency_key, payload_sha256, array_to_tsvector(array_remove(string_to_array(words, ' '), ''))
    FROM json_to_recordset(posts) AS post (
        thread_id text, seq bigint, message_id text, sender text, kind text, body text, metadata text, in_reply_to text,
        addressee text, created_at timestamptz, traceparent text, thread_status text, idempotency_key text,
        payload_sha256 text, words text);
    INSERT INTO bridge_audit (chain, link, at, workspace_id, actor, role, request_id, operation, thread_id, outcome, rule,
                              state_before, state_after, sha256)
    SELECT chain, link, at, workspace_id, actor, role, request_id, operation, thread_id, outcome, rule,
           state_before, state_after, sha256
    FROM json_to_recordset(audit) AS note (
        chain text, link bigint, at timestamptz, workspace_id text, actor text, role text, request_id text,
        operation text, thread_id text, outcome text, rule text, state_before text, state_after text, sha256 text);
    -- Posts are added to what other writers have counted meanwhile, see state.Rate.
    WITH written AS (
        INSERT INTO bridge_rates AS known SELECT * FROM json_populate_recordset(NULL::bridge_rates, rates)
        ON CONFLICT (workspace_id, agent_id) DO UPDATE SET
            rate_minute = greatest(known.rate_minute, excluded.rate_minute),
            rate_posts  = excluded.rate_posts
                          + CASE WHEN known.rate_minute >= excluded.rate_minute THEN known.rate_posts ELSE 0 END,
            rate_before = CASE WHEN known.rate_minute >= excluded.rate_minute THEN known.rate_before
                               WHEN known.rate_minute = excluded.rate_minute - 1 THEN known.rate_posts ELSE 0 END
        RETURNING *
    ) SELECT json_agg(json_build_array(workspace_id, agent_id, rate_minute, rate_posts, rate_before)) FROM written
    INTO counted;
    IF rest IS NULL THEN
        RETURN counted;
    END IF;
    INSERT INTO bridge_threads SELECT * FROM json_populate_recordset(NULL::bridge_threads, rest->'created');
    INSERT INTO bridge_participants SELECT * FROM json_populate_recordset(NULL::bridge_participants, rest->'joined')
    ON CONFLICT (thread_id, agent_id) DO UPDATE SET
        role = excluded.role, joined_at = excluded.joined_at, last_read_seq = excluded.last_read_seq;
    DELETE FROM bridge_participants USING json_populate_recordset(NULL::bridge_participants, rest->'left') gone
    WHERE bridge_participants.thread_id = gone.thread_id AND bridge_participants.agent_id = gone.agent_id;
    INSERT INTO bridge_findings SELECT * FROM json_populate_recordset(NULL::bridge_findings, rest->'findings')
    ON CONFLICT (thread_id, finding_id) DO UPDATE SET
        state = excluded.state, reports = excluded.reports, message_id = excluded.message_id,
        reported_by = excluded.reported_by;
    INSERT INTO bridge_sessions SELECT * FROM json_populate_recordset(NULL::bridge_sessions, rest->'sessions')
    ON CONFLICT (workspace_id, agent_id, session_id) DO UPDATE SET
        runtime = excluded.runtime, management_mode = excluded.management_mode, resumable = excluded.resumable,
        status = excluded.status, heartbeat_at = excluded.heartbeat_at;
    INSERT INTO bridge_triggers SELECT * FROM json_populate_recordset(NULL::bridge_triggers, rest->'triggers');
    INSERT INTO bridge_revocations SELECT * FROM json_populate_recordset(NULL::bridge_revocations, rest->'revocations')
    ON CONFLICT (token_id) DO NOTHING;
    UPDATE bridge_chains SET links = head_of.links, head = head_of.head
    FROM json_populate_recordset(NULL::bridge_chains, rest->'chains') head_of
    WHERE bridge_chains.workspace_id = head_of.workspace_id;
    IF rest->'removed' IS NOT NULL THEN
        FOR row IN SELECT one->>'thread_id' AS id FROM json_array_elements(rest->'removed') one LOOP
            DELETE FROM bridge_messages WHERE thread_id = row.id;
            DELETE FROM bridge_participants WHERE thread_id = row.id;
            DELETE FROM bridge_findings WHERE thread_id = row.id;
            DELETE FROM bridge_triggers WHERE thread_id = row.id;
            DELETE FROM bridge_audit WHERE chain = row.id;
            DELETE FROM bridge_threads WHERE thread_id = row.id;
        END LOOP;
    END IF;
    RETURN counted;
END $$;

-- Returns a thread, the reader's place in it, and its next messages as JSON in the words of the wire, without those meant
-- for others unless it sees all. Written out, for it takes 120 µs for 50 messages where `||` takes 160 and json_build_object
-- 400; ids, names and kinds need no quoting.
CREATE FUNCTION bridge_read(
    id text, reader text, since bigint, many bigint, sees_all boolean, OUT place json, OUT messages text, OUT last bigint)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT json_build_array(t, p) INTO place
    FROM bridge_threads t LEFT JOIN bridge_participants p ON p.thread_id = t.thread_id AND p.agent_id = reader
    WHERE t.thread_id = id;
    SELECT '[' || string_agg(m.message, ',') || ']', max(m.seq) INTO messages, last
    FROM (
        SELECT seq, CASE WHEN sees_all OR addressee IS NULL OR reader IN (addressee, sender) THEN
            format('{"message_id":"%s","thread_id":"%s","seq":%s,"sender":"%s","kind":"%s","body":%s,"metadata":%s,'
                   '"in_reply_to":%s,"to":%s,"created_at":"%sZ","traceparent":%s}',
                   message_id, thread_id, seq, sender, kind, to_json(body), metadata,
                   coalesce(to_json(in_reply_to), 'null'), coalesce(to_json(addressee), 'null'),
                   btrim(to_json(created_at AT TIME ZONE 'UTC')::text, '"'), to_json(traceparent)) END AS message
        FROM bridge_messages WHERE thread_id = id AND seq > since ORDER BY seq LIMIT many
    ) m;
END $$;

-- Carries out reads that share a query, in their order. Its plans are kept: a query in its place takes 30 µs more; and once
-- the tables are analyzed, a limit that is known looks so much cheaper than any that each read is planned anew: 60 µs.
CREATE FUNCTION bridge_reads(asked json) RETURNS TABLE (place text, messages text, last text) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT r.place::text, r.messages, r.last::text
    FROM json_array_elements(asked) WITH ORDINALITY AS a (read, number),
         LATERAL bridge_read(a.read->>0, a.read->>1, (a.read->>2)::bigint, (a.read->>3)::bigint, (a.read->>4)::boolean) r
    ORDER BY a.number;
END $$;
