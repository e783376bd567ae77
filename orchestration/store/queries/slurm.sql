-- name: slurm.get
-- Give what is known of a cycle's job.
SELECT * FROM slurm_jobs WHERE cycle = :cycle;

-- name: slurm.note
-- Note what is known of a cycle's job.
INSERT INTO slurm_jobs (cycle, job_id, submitted_at, state, reason, nodes, gpus, missed_since)
VALUES (:cycle, :job_id, :submitted_at, :state, :reason, :nodes, :gpus, :missed_since)
ON CONFLICT (cycle) DO UPDATE SET job_id = excluded.job_id, submitted_at = excluded.submitted_at, state = excluded.state,
    reason = excluded.reason, nodes = excluded.nodes, gpus = excluded.gpus, missed_since = excluded.missed_since;
