-- What hosts of a scope share of their files, PostgreSQL only; see scope/sharing.py.
-- Every statement that changes a row gives the table another revision by a trigger, so nobody can forget to.

-- name: shared_files.look
-- Give the table's revision, and if that is not the one that is known, its rows without their contents: all, or one host's.
SELECT r.revision,
    CASE WHEN r.revision <> :known THEN coalesce((
        SELECT json_agg(json_build_array(f.host, f.folder, f.name, f.state, f.mark, f.sha256, f.content_sha, f.stand_in,
                f.changed_at, f.filed_as, f.decided_at, f.intent_type, length(f.content))
            ORDER BY f.host, f.folder, f.name)
        FROM shared_files f WHERE :everything = 1 OR f.host = :here), '[]')::text END AS listing
FROM shared_revision r;

-- name: shared_files.contents
-- Give the contents of files (a JSON list of [host, folder, name]).
SELECT f.host, f.folder, f.name, f.sha256, f.stand_in, f.changed_at, f.owner,
    encode(f.content, 'base64') AS content
FROM jsonb_array_elements(CAST(:files AS jsonb)) AS asked
JOIN shared_files f ON f.host = asked ->> 0 AND f.folder = asked ->> 1 AND f.name = asked ->> 2;

-- name: shared_files.share
-- Put files of this host (a JSON list of objects) as they are now. What was decided on an intent of that name meanwhile was
-- about a content that is not there any more.
INSERT INTO shared_files (host, folder, name, state, mark, sha256, content, stand_in, content_sha, changed_at, owner)
SELECT :here, g.folder, g.name, 'there', g.mark, g.sha256, decode(g.content, 'base64'), g.stand_in, g.content_sha,
    g.changed_at, g.owner
FROM jsonb_to_recordset(CAST(:files AS jsonb)) AS g(folder text, name text, mark text, sha256 text, content text,
    stand_in text, content_sha text, changed_at double precision, owner text)
ON CONFLICT (host, folder, name) DO UPDATE SET
    state = excluded.state, mark = excluded.mark, sha256 = excluded.sha256, content = excluded.content,
    stand_in = excluded.stand_in, content_sha = excluded.content_sha, changed_at = excluded.changed_at,
    owner = excluded.owner, shared_at = clock_timestamp();

-- name: shared_files.touch
-- Note that files of this host (a JSON list of [folder, name, mark]) are other ones of the same content.
UPDATE shared_files f SET mark = g ->> 2
FROM jsonb_array_elements(CAST(:files AS jsonb)) AS g
WHERE f.host = :here AND f.folder = g ->> 0 AND f.name = g ->> 1;

-- name: shared_files.withdraw
-- Let go of files of this host (a JSON list of [folder, name, state]), as far as they still stand so.
DELETE FROM shared_files f USING jsonb_array_elements(CAST(:files AS jsonb)) AS g
WHERE f.host = :here AND f.folder = g ->> 0 AND f.name = g ->> 1 AND f.state = g ->> 2;

-- name: shared_files.found
-- Put acks that lie on this host, whoever wrote them (a JSON list of objects); one of ours that is under way has lost to them.
INSERT INTO shared_files (host, folder, name, state, mark, sha256, content, changed_at)
SELECT :here, 'acks', g.name, 'done', '', g.sha256, decode(g.content, 'base64'), g.changed_at
FROM jsonb_to_recordset(CAST(:files AS jsonb)) AS g(name text, sha256 text, content text, changed_at double precision)
ON CONFLICT (host, folder, name) DO UPDATE SET
    state = 'done', sha256 = excluded.sha256, content = excluded.content, changed_at = excluded.changed_at;

-- name: shared_files.delivered
-- Note that this host has files that the scope gave it (a JSON list of [folder, name, new state, mark]).
UPDATE shared_files f SET state = g ->> 2, mark = g ->> 3
FROM jsonb_array_elements(CAST(:files AS jsonb)) AS g
WHERE f.host = :here AND f.folder = g ->> 0 AND f.name = g ->> 1 AND f.state = 'given';

-- name: shared_files.give
-- Give hosts files (a JSON list of objects) that they are to put in place; one of that name stays as it is. Tells which are new.
INSERT INTO shared_files (host, folder, name, state, mark, sha256, content, content_sha, changed_at)
SELECT g.host, g.folder, g.name, 'given', '', g.sha256, decode(g.content, 'base64'), g.content_sha, g.changed_at
FROM jsonb_to_recordset(CAST(:files AS jsonb)) AS g(host text, folder text, name text, sha256 text, content text,
    content_sha text, changed_at double precision)
ON CONFLICT (host, folder, name) DO NOTHING
RETURNING host, folder, name;

-- name: shared_files.keep
-- Put what a cycle left (a JSON list of objects) where the leader finds it; repeated, it is replaced.
INSERT INTO shared_files (host, folder, name, state, mark, sha256, content, stand_in, content_sha, changed_at)
SELECT :here, 'cycles', g.name, 'there', '', g.sha256, decode(g.content, 'base64'), g.stand_in, '', g.changed_at
FROM jsonb_to_recordset(CAST(:files AS jsonb)) AS g(name text, sha256 text, content text, stand_in text,
    changed_at double precision)
ON CONFLICT (host, folder, name) DO UPDATE SET
    sha256 = excluded.sha256, content = excluded.content, stand_in = excluded.stand_in, changed_at = excluded.changed_at;

-- name: shared_files.ended
-- Leave to the host that ran a cycle, or else to this one, to write its manifest now that nothing more happens to it.
INSERT INTO shared_files (host, folder, name, state, mark, sha256, content, changed_at)
SELECT coalesce(nullif(c.host, ''), :here), 'cycles', :folder || '/manifest.json', 'filed', '', '', '', 0
FROM cycles c WHERE c.cycle = :cycle
ON CONFLICT (host, folder, name) DO NOTHING;

-- name: shared_files.of_promotions
-- Give the promotions with these names in the mirror (a JSON list), with whose files they are.
SELECT f.host, f.folder, f.name, f.sha256, f.stand_in, f.changed_at, f.owner, encode(f.content, 'base64') AS content
FROM jsonb_array_elements_text(CAST(:names AS jsonb)) AS asked
JOIN shared_files f ON f.folder = 'promotions' AND f.host = split_part(asked, '@', 1)
    AND f.name = substr(asked, strpos(asked, '@') + 1);

-- name: shared_files.sweep
-- Let go of what no cycle needs any more: what settled cycles left, and acks that are at their place.
DELETE FROM shared_files f
WHERE (f.folder = 'cycles' AND f.state = 'there' AND NOT EXISTS (
        SELECT 1 FROM cycles c WHERE c.settled_at IS NULL
            AND c.cycle = CAST(substring(f.name from '^cycle_(\d+)/') AS bigint)))
    OR (f.folder = 'acks' AND f.state = 'done' AND NOT EXISTS (
        SELECT 1 FROM cycles c WHERE c.settled_at IS NULL AND c.job = 'dream'
            AND CAST(kloros_part(c.origin, 'promotions') AS jsonb) @> to_jsonb(f.host || '@' || left(f.name, -9))));
