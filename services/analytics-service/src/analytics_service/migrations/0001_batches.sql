-- What was ingested. A batch is one row here; each change of its status is a newer version of that row, and a single
-- row is written whole or not at all. Reports read the rows of completed batches alone.
CREATE TABLE IF NOT EXISTS ingest_batches
(
    client_id UUID,
    prospect_id UUID,
    id UUID,
    dataset LowCardinality(String),
    source LowCardinality(String),
    content_sha256 String,
    status Enum8('loading' = 1, 'completed' = 2, 'removing' = 3, 'removed' = 4),
    rows UInt64,
    rejected UInt64,
    rejects String,
    created_at DateTime64(3, 'UTC'),
    version UInt8
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (client_id, prospect_id, id);
