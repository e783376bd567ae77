-- A scope's tables in PostgreSQL, for checking, keeping and putting them back (operator/scope_copies.py). Only PostgreSQL has them.

-- name: scope_copies.tables
-- Give the tables of a scope and their columns, with the types that need care, in the order in which they were made.
SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns c
JOIN pg_class k ON k.relname = c.table_name AND k.relkind = 'r' AND k.relnamespace = current_schema()::regnamespace
WHERE c.table_schema = current_schema() AND left(c.table_name, 7) <> 'bridge_' AND c.table_name <> 'kloros_schema'
ORDER BY c.table_name, c.ordinal_position;

-- name: scope_copies.lock
-- Keep every host from writing until the end of this transaction.
SELECT epoch FROM leases FOR UPDATE;
LOCK TABLE cycles, ticks, hosts, shared_files IN SHARE ROW EXCLUSIVE MODE;

-- name: scope_copies.put_back
-- After rows were put back: nobody leads, under an epoch that was never anybody's, so that who led before writes nothing; and
-- each host writes the files of baseline and escrow again.
UPDATE leases SET holder = '', since = NULL, renewed_at = NULL, expires_at = NULL, epoch = 1 + greatest(
    epoch, CAST(:epoch AS BIGINT), (SELECT coalesce(max(ticks.epoch), 0) FROM ticks));
DELETE FROM baseline_files WHERE retired_at IS NULL;
DELETE FROM escrow_files;

-- name: scope_copies.leases
-- Say how many leases there are, when that is more than one, or none and somebody ticked.
SELECT count(*) || ' leases' AS what FROM leases HAVING count(*) > 1 OR count(*) = 0 AND EXISTS (SELECT FROM ticks);

-- name: scope_copies.epochs
-- Give ticks that were stored under an older lease than one before them.
SELECT 'tick ' || tick AS what FROM (
    SELECT tick, epoch, max(epoch) OVER (ORDER BY tick) AS newest FROM ticks WHERE epoch IS NOT NULL) AS led
WHERE epoch < newest ORDER BY tick LIMIT 10;

-- name: scope_copies.hosts
-- Give cycles that run, or ran, on no host.
SELECT 'cycle ' || cycle AS what FROM cycles
WHERE host = '' AND executor = 'local' AND started_at IS NOT NULL ORDER BY cycle LIMIT 10;

-- name: scope_copies.settled
-- Give cycles that are settled and have not ended.
SELECT 'cycle ' || cycle AS what FROM cycles
WHERE settled_at IS NOT NULL AND state IN ('queued', 'running') ORDER BY cycle LIMIT 10;

-- name: scope_copies.phases
-- Give local dates with more than one PHASE that succeeded.
SELECT phase_date AS what FROM cycles WHERE phase_date IS NOT NULL AND state = 'succeeded'
GROUP BY phase_date HAVING count(*) > 1 ORDER BY phase_date LIMIT 10;

-- name: scope_copies.versions
-- Give baseline versions that don't follow the one before.
SELECT 'version ' || version AS what FROM (
    SELECT version, previous_sha, lag(sha256, 1, '') OVER (ORDER BY version) AS before FROM baseline_versions) AS chain
WHERE previous_sha <> before ORDER BY version LIMIT 10;
