-- The four datasets. Ids of the source are keyed hashes: all of HMAC-SHA-256 for members, its first half for the others.
-- A batch is a partition: taking one out is DROP PARTITION, and a report opens no part of other prospects' batches.
CREATE TABLE IF NOT EXISTS claims
(
    client_id UUID,
    prospect_id UUID,
    batch_id UUID,
    member_id FixedString(32),
    claim_id FixedString(16),
    line_number UInt32,
    service_date DateTime64(3, 'UTC'),
    paid_date Nullable(DateTime64(3, 'UTC')),
    claim_type LowCardinality(String),
    place_of_service LowCardinality(String),
    diagnosis_codes Array(LowCardinality(String)),
    code_system LowCardinality(String),
    procedure_code LowCardinality(String),
    provider_id FixedString(16),
    billed Decimal(18, 2),
    allowed Decimal(18, 2),
    paid Decimal(18, 2),
    member_paid Decimal(18, 2)
)
ENGINE = MergeTree
PARTITION BY batch_id
ORDER BY (client_id, prospect_id, member_id, service_date);

CREATE TABLE IF NOT EXISTS clinical
(
    client_id UUID,
    prospect_id UUID,
    batch_id UUID,
    member_id FixedString(32),
    recorded_date DateTime64(3, 'UTC'),
    kind LowCardinality(String),
    code LowCardinality(String),
    code_system LowCardinality(String),
    description LowCardinality(String),
    value_number Nullable(Float64),
    value_text Nullable(String),
    unit LowCardinality(String),
    end_date Nullable(DateTime64(3, 'UTC'))
)
ENGINE = MergeTree
PARTITION BY batch_id
ORDER BY (client_id, prospect_id, member_id, recorded_date);

CREATE TABLE IF NOT EXISTS utilization
(
    client_id UUID,
    prospect_id UUID,
    batch_id UUID,
    member_id FixedString(32),
    encounter_id FixedString(16),
    start DateTime64(3, 'UTC'),
    end Nullable(DateTime64(3, 'UTC')),
    encounter_class LowCardinality(String),
    reason_code LowCardinality(String),
    facility_id FixedString(16),
    length_of_stay_days UInt32,
    total_cost Decimal(18, 2)
)
ENGINE = MergeTree
PARTITION BY batch_id
ORDER BY (client_id, prospect_id, member_id, start);

CREATE TABLE IF NOT EXISTS pharmacy
(
    client_id UUID,
    prospect_id UUID,
    batch_id UUID,
    member_id FixedString(32),
    fill_id FixedString(16),
    fill_date DateTime64(3, 'UTC'),
    drug_code LowCardinality(String),
    code_system LowCardinality(String),
    drug_name LowCardinality(String),
    therapeutic_class LowCardinality(String),
    quantity Decimal(18, 3),
    days_supply UInt32,
    dispenses UInt32,
    paid Decimal(18, 2),
    member_paid Decimal(18, 2)
)
ENGINE = MergeTree
PARTITION BY batch_id
ORDER BY (client_id, prospect_id, member_id, fill_date);
