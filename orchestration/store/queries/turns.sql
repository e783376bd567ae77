-- name: turns.hold_claim
-- Find that a supervisor's claim on a trigger holds, by the store's own clock, and keep it from being lost until the end of the
-- transaction.
UPDATE bridge_wake_states SET fence = fence
WHERE trigger_id = :trigger_id AND holder = :holder AND fence = :fence
    AND lease_until > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
RETURNING trigger_id;
