-- The lease of a scope and the hosts in it; only PostgreSQL has them. Instants go out as everywhere, see instants.py, and all
-- are the server's: clock_timestamp() goes on inside a statement, so that one that waited for a row sees the time it got it.

-- name: leases.look
-- Give the lease as it stands, with the server's clock.
SELECT holder, epoch, pinned_to, yielded_by, kloros_instant(clock_timestamp()) AS now, kloros_instant(since) AS since,
    kloros_instant(expires_at) AS expires_at, kloros_instant(yielded_until) AS yielded_until
FROM leases WHERE scope = :scope;

-- name: leases.take
-- Take a lease that nobody has, or that has lapsed, under the next epoch, if it still is the one that was looked at.
UPDATE leases SET holder = :here, epoch = epoch + 1, since = clock_timestamp(), renewed_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => :seconds), yielded_by = '', yielded_until = NULL
WHERE scope = :scope AND epoch = :epoch AND (holder = '' OR expires_at <= clock_timestamp())
    AND (pinned_to = :here OR pinned_to = '' AND NOT (yielded_by = :here AND yielded_until > clock_timestamp()))
RETURNING holder, epoch, pinned_to, yielded_by, kloros_instant(clock_timestamp()) AS now, kloros_instant(since) AS since,
    kloros_instant(expires_at) AS expires_at, kloros_instant(yielded_until) AS yielded_until;

-- name: leases.renew
-- Renew the lease that this host has, unless it has lapsed: then it is to be taken anew.
UPDATE leases SET renewed_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => :seconds)
WHERE scope = :scope AND holder = :here AND epoch = :epoch AND expires_at > clock_timestamp() AND pinned_to IN ('', :here)
RETURNING holder, epoch, pinned_to, yielded_by, kloros_instant(clock_timestamp()) AS now, kloros_instant(since) AS since,
    kloros_instant(expires_at) AS expires_at, kloros_instant(yielded_until) AS yielded_until;

-- name: leases.release
-- Give up the lease if this host has it, so that the next tick of any host takes it.
UPDATE leases SET holder = '', since = NULL, renewed_at = NULL, expires_at = NULL
WHERE scope = :scope AND holder = :here
RETURNING epoch;

-- name: leases.hand_over
-- Take the lease from its holder, who leaves it to the others for a while.
UPDATE leases SET yielded_by = holder, yielded_until = clock_timestamp() + make_interval(secs => :seconds),
    holder = '', since = NULL, renewed_at = NULL, expires_at = NULL
WHERE scope = :scope AND holder = :holder AND epoch = :epoch AND pinned_to <> :holder
RETURNING epoch;

-- name: leases.pin
-- Let one host alone have the lease; another that has it loses it at once.
UPDATE leases SET pinned_to = :host, yielded_by = '', yielded_until = NULL,
    holder = CASE holder WHEN :host THEN holder ELSE '' END,
    since = CASE holder WHEN :host THEN since END,
    renewed_at = CASE holder WHEN :host THEN renewed_at END,
    expires_at = CASE holder WHEN :host THEN expires_at END
WHERE scope = :scope AND pinned_to <> :host
RETURNING epoch;

-- name: leases.unpin
-- Let any host have the lease again.
UPDATE leases SET pinned_to = '' WHERE scope = :scope AND pinned_to <> ''
RETURNING epoch;
