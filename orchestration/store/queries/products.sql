-- name: products.begin
-- Note what a cycle's command is about to be given; what another run of the same number left goes.
INSERT INTO products (cycle, environment, revision) VALUES (:cycle, :environment, :revision)
ON CONFLICT (cycle) DO UPDATE
SET environment = excluded.environment, revision = excluded.revision, files = NULL, omitted = 0, telemetry = NULL;

-- name: products.end
-- Note what a cycle left.
INSERT INTO products (cycle, files, omitted) VALUES (:cycle, :files, :omitted)
ON CONFLICT (cycle) DO UPDATE SET files = excluded.files, omitted = excluded.omitted;

-- name: products.get
-- Give what is known of what a cycle was given and left.
SELECT environment, revision, files, omitted FROM products WHERE cycle = :cycle;

-- name: products.forget
-- Forget what a cycle was given and left.
DELETE FROM products WHERE cycle = :cycle;

-- name: products.measured
-- Note the telemetry that a cycle left.
UPDATE products SET telemetry = :telemetry WHERE cycle = :cycle;
