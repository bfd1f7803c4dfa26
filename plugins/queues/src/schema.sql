-- Version 1.
CREATE TABLE jobs (
    -- The order in which jobs were accepted.
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    pipeline TEXT NOT NULL,
    version TEXT NOT NULL,
    -- queued, running, succeeded, failed, dead, cancelled
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    -- Of the last lease. It never falls.
    token INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    lease_until_ms INTEGER,
    not_before_ms INTEGER NOT NULL,
    shard INTEGER,
    ordered INTEGER NOT NULL,
    idempotency_key TEXT,
    -- A hash of what was asked with the key.
    asked TEXT,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    payload BLOB NOT NULL,
    -- JSON.
    result TEXT,
    error TEXT
) STRICT;
CREATE UNIQUE INDEX jobs_by_key ON jobs (pipeline, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_queued ON jobs (pipeline, not_before_ms, number) WHERE state = 'queued';
CREATE INDEX jobs_running ON jobs (lease_until_ms) WHERE state = 'running';
CREATE INDEX jobs_ordered ON jobs (pipeline, shard, number) WHERE ordered = 1 AND state IN ('queued', 'running');
