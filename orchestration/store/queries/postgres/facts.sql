-- Which facts are this host's, and which the scope's, tells kloros_fact_host (migrations/postgres/0003_kernel.sql).

-- name: facts.get
-- Give one remembered fact.
SELECT value FROM facts WHERE name = :name AND host = kloros_fact_host(:name, :here);

-- name: facts.set
-- Remember a fact, replacing what was known.
INSERT INTO facts (host, name, value) VALUES (kloros_fact_host(:name, :here), :name, :value)
ON CONFLICT (host, name) DO UPDATE SET value = excluded.value;

-- name: facts.set_once
-- Remember a fact unless it is known already.
INSERT INTO facts (host, name, value) VALUES (kloros_fact_host(:name, :here), :name, :value)
ON CONFLICT (host, name) DO NOTHING;

-- name: facts.observer_news
-- Note that something happened which the observer's rules may count, so that the next tick that decides asks them.
INSERT INTO facts (host, name, value) VALUES ('', 'observer.due', :now)
ON CONFLICT (host, name) DO UPDATE SET value = excluded.value;
