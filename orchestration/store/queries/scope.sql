-- How a scope of several hosts stands, for people and metrics; only PostgreSQL has one. Instants are the server's.

-- name: scope.look
-- Give the lease, hosts, what is queued or runs where, and the gauges that the newest leader's tick told. Who asks each minute
-- while another leads is not given every host (:everyone 0), but how many there are: itself, the leader, and what is not well.
SELECT scope, :here AS here, kloros_instant(clock_timestamp()) AS now,
    holder, epoch, kloros_instant(since) AS since, kloros_instant(renewed_at) AS renewed_at,
    kloros_instant(expires_at) AS expires_at, pinned_to, yielded_by, kloros_instant(yielded_until) AS yielded_until,
    (SELECT coalesce(json_agg(json_build_array(host, role, release, kloros_instant(last_tick_at), last_tick_exit,
        clock_offset_seconds) ORDER BY host), '[]')::text FROM hosts
        WHERE :everyone = 1 OR holder IN ('', :here) OR expires_at <= clock_timestamp() OR host IN (:here, holder)
            OR coalesce(last_tick_at, first_seen_at) < clock_timestamp() - make_interval(secs => :silent)
            OR abs(clock_offset_seconds) > :clock_off) AS hosts,
    (SELECT count(*) FROM hosts) AS known,
    (SELECT coalesce(json_agg(json_build_array(host, executor, state, number) ORDER BY host, executor, state), '[]')::text
        FROM (SELECT host, executor, state, count(*) AS number FROM cycles WHERE state IN ('queued', 'running')
            GROUP BY host, executor, state) AS active) AS running,
    (SELECT coalesce(json_agg(json_build_array(name, value)), '[]')::text FROM counters
        WHERE labels = '' AND name IN ('kloros_promotions_unacked', 'kloros_promotions_parked',
            'kloros_promotions_oldest_timestamp_seconds')
            AND host = (SELECT host FROM ticks WHERE epoch IS NOT NULL ORDER BY started_at DESC LIMIT 1)) AS shared
FROM leases WHERE scope = :scope;

-- name: scope.cycles_ended
-- Give how many cycles ever ended on any host, by the labels under which each counts its own.
SELECT labels, sum(value) AS value FROM counters WHERE name = 'kloros_cycles_total' GROUP BY labels;

-- name: scope.server
-- Give what the server is, whether it keeps what it was told, the version of its tables, and which machine ticks as this host.
SELECT current_setting('server_version') AS version, (SELECT max(version) FROM kloros_schema) AS schema,
    current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
    kloros_instant(clock_timestamp()) AS now, (SELECT machine_id FROM hosts WHERE host = :here) AS machine_id,
    (SELECT count(*) FROM hosts WHERE host = :here AND last_tick_at > clock_timestamp() - interval '5 minutes') AS ticks;

-- name: scope.forget_host
-- Forget a host that was taken away: it has not ticked for :seconds, leads nothing, and nothing is said to run on it.
DELETE FROM hosts WHERE host = :host
    AND coalesce(last_tick_at, first_seen_at) <= clock_timestamp() - make_interval(secs => :seconds)
    AND NOT EXISTS (SELECT 1 FROM leases
        WHERE scope = :scope AND (pinned_to = :host OR holder = :host AND expires_at > clock_timestamp()))
    AND NOT EXISTS (SELECT 1 FROM cycles WHERE cycles.host = hosts.host AND state = 'running');
