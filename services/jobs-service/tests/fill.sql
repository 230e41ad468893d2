-- Jobs for measuring: as many as `SET triton.jobs = 1000000` says, one each ten seconds up to now, of 20 clients.
--
-- One client has 60 % of them; prospects and schedules have from thousands down to a few. 95 % are completed, 3 % failed,
-- 1 % cancelled, 0.9 % pending, 0.1 % processing; 94 % have normal priority, 5 % low, 1 % high. One failure in 50,000 has
-- the code facts_missing, one in a thousand model_refused. Needs a superuser: no foreign key is checked meanwhile.
SET session_replication_role = replica;
SELECT setseed(0.5);

INSERT INTO clients (id, name)
SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'Client ' || n FROM generate_series(1, 20) AS n;

INSERT INTO prospects (id, client_id, name)
SELECT ('00000000-0000-7000-9000-' || lpad(n::text, 12, '0'))::uuid,
  ('00000000-0000-7000-8000-' || lpad((CASE WHEN n <= 1000 THEN 1 ELSE 2 + n % 19 END)::text, 12, '0'))::uuid,
  'Prospect ' || n
FROM generate_series(1, 2000) AS n;

INSERT INTO generation_jobs (id, created_at, job_type, client_id, prospect_id, value_proposition_id, schedule_id,
  created_by, request_id, priority, status, progress, stage, error, document_id, event_seq, started_at, finished_at,
  attempt, max_attempts, run_after, dispatch_at, lease_expires_at)
SELECT uuidv7(made - now()), made, 'value_proposition',
  ('00000000-0000-7000-8000-' || lpad((CASE WHEN prospect <= 1000 THEN 1 ELSE 2 + prospect % 19 END)::text, 12, '0'))::uuid,
  ('00000000-0000-7000-9000-' || lpad(prospect::text, 12, '0'))::uuid, '00000000-0000-7000-a000-000000000001',
  CASE WHEN prospect % 10 = 1 THEN ('00000000-0000-7000-b000-' || lpad(prospect::text, 12, '0'))::uuid END,
  'somebody', 'request', priority::job_priority, status, CASE status WHEN 'completed' THEN 100 ELSE 30 END, 'writing',
  CASE status WHEN 'failed' THEN jsonb_build_object('code', code, 'message', 'It failed, and this says why.') END,
  CASE status WHEN 'completed' THEN gen_random_uuid() END, 6,
  CASE WHEN status <> 'pending' THEN made END,
  CASE WHEN status IN ('completed', 'failed', 'cancelled') THEN made + interval '40 seconds' END,
  CASE WHEN status <> 'pending' THEN 1 ELSE 0 END, 3, made, NULL,
  CASE status WHEN 'processing' THEN now() + interval '1 day' END
FROM (
  SELECT now() - (current_setting('triton.jobs')::int - n + 10) * interval '10 seconds' AS made,
    CASE WHEN c < 0.6 THEN 1 ELSE 1001 END + floor(1000 * p ^ 3)::int AS prospect,
    CASE WHEN s < 0.95 THEN 'completed' WHEN s < 0.98 THEN 'failed' WHEN s < 0.99 THEN 'cancelled'
      WHEN s < 0.999 THEN 'pending' ELSE 'processing' END AS status,
    CASE WHEN r < 0.94 THEN 'normal' WHEN r < 0.99 THEN 'low' ELSE 'high' END AS priority,
    CASE WHEN e < 0.00002 THEN 'facts_missing' WHEN e < 0.00102 THEN 'model_refused' WHEN e < 0.6 THEN 'model_failed'
      WHEN e < 0.85 THEN 'worker_lost' ELSE 'timed_out' END AS code
  FROM (
    SELECT n, random() AS c, random() AS p, random() AS s, random() AS r, random() AS e
    FROM generate_series(1, current_setting('triton.jobs')::int) AS n
  )
);

RESET session_replication_role;
ANALYZE generation_jobs;
