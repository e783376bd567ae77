-- What a cycle's command was given and what it left, for its manifest (cycles/products.py).

CREATE TABLE products (
    cycle        INTEGER PRIMARY KEY,
    environment  TEXT,                        -- JSON list of names
    revision     TEXT,                        -- commit of the command's git work tree
    files        TEXT,                        -- JSON list of [path, size, sha256, media_type]; NULL: not known
    omitted      INTEGER NOT NULL DEFAULT 0   -- files beyond those listed
);
