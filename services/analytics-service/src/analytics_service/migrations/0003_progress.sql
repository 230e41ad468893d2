-- A load that failed is kept with its reason; a batch knows the bytes that it came in.
ALTER TABLE ingest_batches
    MODIFY COLUMN status Enum8('loading' = 1, 'completed' = 2, 'removing' = 3, 'removed' = 4, 'failed' = 5);

ALTER TABLE ingest_batches ADD COLUMN IF NOT EXISTS bytes UInt64;

ALTER TABLE ingest_batches ADD COLUMN IF NOT EXISTS error String;
