-- name: census_sqlite.posted
-- Count messages of stretches of threads by what they are; the words of metadata are told from others in Python.
SELECT m.kind, CASE WHEN m.kind = 'chat' THEN NULL ELSE m.metadata ->> 'event_type' END AS event_type,
    CASE WHEN m.kind = 'system' THEN m.metadata ->> 'to' END AS status,
    CASE WHEN m.kind = 'system' THEN m.sender END AS sender,
    CASE WHEN m.kind = 'system' THEN substr(m.metadata ->> 'reason', 1, 19) END AS reason,
    count(*) AS messages
FROM json_each(:stretches) s
JOIN bridge_messages m ON m.thread_id = s.value ->> 0 AND m.seq > s.value ->> 1 AND m.seq <= s.value ->> 2
GROUP BY 1, 2, 3, 4, 5;
