-- name: facts.get
-- Give one remembered fact.
SELECT value FROM facts WHERE name = :name;

-- name: facts.set
-- Remember a fact, replacing what was known.
INSERT INTO facts (name, value) VALUES (:name, :value)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: facts.set_once
-- Remember a fact unless it is known already.
INSERT INTO facts (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING;
