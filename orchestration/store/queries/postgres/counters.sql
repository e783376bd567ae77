-- Metrics are a host's own.

-- name: counters.add
-- Add to series of this host, a JSON list of [name, labels, value]; creates those that are not there.
INSERT INTO counters (host, name, labels, value)
SELECT :here, one ->> 0, one ->> 1, CAST(one ->> 2 AS double precision) FROM json_array_elements(:series) AS one
ON CONFLICT (host, name, labels) DO UPDATE SET value = counters.value + excluded.value;

-- name: counters.all
-- Give every series of this host in the order in which it is published.
SELECT name, labels, value FROM counters WHERE host = :here ORDER BY name, labels;

-- name: counters.set
-- Put this host's gauges at their values, a JSON object by name.
INSERT INTO counters (host, name, labels, value)
SELECT :here, key, '', CAST(value AS double precision) FROM json_each_text(:gauges)
ON CONFLICT (host, name, labels) DO UPDATE SET value = excluded.value;
