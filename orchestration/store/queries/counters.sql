-- name: counters.add
-- Add to series, a JSON list of [name, labels, value]; creates those that are not there.
INSERT INTO counters (name, labels, value)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(:series) WHERE true
ON CONFLICT (name, labels) DO UPDATE SET value = counters.value + excluded.value;

-- name: counters.all
-- Give every series in the order in which it is published.
SELECT name, labels, value FROM counters ORDER BY name, labels;

-- name: counters.set
-- Put gauges at their values, a JSON object by name.
INSERT INTO counters (name, labels, value) SELECT key, '', value FROM json_each(:gauges) WHERE true
ON CONFLICT (name, labels) DO UPDATE SET value = excluded.value;
