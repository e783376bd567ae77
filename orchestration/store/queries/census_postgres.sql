-- name: census_postgres.posted
-- Count messages of stretches of threads by what they are; the words of metadata are told from others in Python.
SELECT m.kind, CASE WHEN m.kind = 'chat' THEN NULL ELSE m.metadata::json ->> 'event_type' END AS event_type,
    CASE WHEN m.kind = 'system' THEN m.metadata::json ->> 'to' END AS status,
    CASE WHEN m.kind = 'system' THEN m.sender END AS sender,
    CASE WHEN m.kind = 'system' THEN left(m.metadata::json ->> 'reason', 19) END AS reason,
    count(*) AS messages
FROM json_array_elements(:stretches) s
JOIN bridge_messages m
    ON m.thread_id = s ->> 0 AND m.seq > (s ->> 1)::bigint AND m.seq <= (s ->> 2)::bigint
GROUP BY 1, 2, 3, 4, 5;
