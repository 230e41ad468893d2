"""The state machine of a job, as the statements that move it.

    submit ──► pending ──claim──► processing ──complete──────────────────► completed
               │  ▲  ▲               │  │  └──fail, lease over for good──► failed ◄── over its time limit
               │  │  └─retry, release,  │                                    │        (pending or processing)
               │  │    lease over       └─asked to cancel, at its next call, │
               │  │                       its lease's end or after 9 s───┐   │
               └──┼──cancel──────────────────────────────────────────────┴► cancelled
                  └──a user's retry, for a new series of attempts────────────┴

A move is one UPDATE that names the state, and of a worker the attempt, it starts from, and writes its event and that
event's webhook deliveries with it: who comes late, twice or second matches no row. `attempt` is the fencing token, one
more with each claim. Times are Postgres' own, so nobody else's clock matters.

Moves that somebody asks for take any number of calls, each for another job: `calls` is a JSON array of objects with
`n`, `id` and what the move takes. They answer the rows that moved, each with its call's `n` (see statements.py). The
sweeps' moves find their rows themselves.

A pending job waits for one of three things: to be due (`run_after`); to be admitted, while `dispatch_at` is null,
because its client has enough jobs in flight; or for a worker, its message in the queue, sent again at `dispatch_at`.
"""

from typing import Final

from jobs_service.schemas.jobs import JobPublic

BATCH: Final = 500  # rows a sweep locks at once
ADMISSION_LOCK: Final = 5495021  # stands for nothing; the one of migrations is another

# An endpoint that is deleted at this moment is passed over: KEY SHARE waits for it; the foreign key would fail all.
_DELIVERIES: Final = """
, listening AS (
  SELECT endpoint.id AS endpoint_id, event.job_id, event.seq, event.kind, event.at
  FROM event
  JOIN job ON job.id = event.job_id
  JOIN webhook_endpoints AS endpoint ON endpoint.client_id = job.client_id
    AND endpoint.enabled AND endpoint.event_types @> ARRAY['job.' || event.kind]
  FOR KEY SHARE OF endpoint
), delivery AS (
  INSERT INTO webhook_deliveries (endpoint_id, event_type, job_id, event_seq, payload)
  SELECT endpoint_id, 'job.' || kind, job_id, seq, jsonb_build_object(
    'type', 'job.' || kind,
    'timestamp', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'data', jsonb_build_object(
      'job_id', job.id, 'client_id', job.client_id, 'prospect_id', job.prospect_id,
      'value_proposition_id', job.value_proposition_id, 'job_type', job.job_type, 'status', job.status,
      'progress', job.progress, 'attempt', job.attempt, 'seq', seq, 'document_id', job.document_id,
      'error', CASE WHEN job.error IS NOT NULL
        THEN jsonb_build_object('code', job.error -> 'code', 'message', job.error -> 'message') END))
  FROM listening JOIN job ON job.id = listening.job_id
)"""


def _calls(takes: str) -> str:
    return f"call AS (SELECT * FROM jsonb_to_recordset(%(calls)s::jsonb) AS call (n int, id uuid, {takes}))"  # noqa: S608  as below


def _move(
    event: str,
    change: str,
    where: str,
    *,
    calls: str = "",
    events: str = "1",
    message: str = "''",
    data: str = "'{}'::jsonb",
    also: str = _DELIVERIES,
    answer: str = "SELECT * FROM job",
) -> str:
    """A fenced UPDATE and its event, in one statement; answers the new row of each job that moved.

    `calls` declares what each call brings; without it the move is a sweep's. `events` is how many events the move
    writes: 1, or 0 where nothing changed that anybody wants to hear of.

    CASE keeps Postgres from looking for rows by anything but their id: before it knows the table it takes the index of
    all pending jobs for the shorter way, and would read them all at each claim.
    """
    found = f"FROM call WHERE job.id = call.id AND CASE WHEN {where} THEN true END" if calls else f"WHERE {where}"
    return f"""
WITH {_calls(calls) + ", " if calls else ""}job AS (
  UPDATE generation_jobs AS job SET {change}, event_seq = event_seq + {events}
  {found}
  RETURNING {"call.n, " if calls else ""}new.*, old.event_seq AS seq_before
), event AS (
  INSERT INTO job_events (job_id, seq, kind, status, progress, stage, message, data)
  SELECT id, event_seq, {event}, status, progress, stage, {message}, {data} FROM job WHERE event_seq > seq_before
  RETURNING job_id, seq, kind, at
){also}
{answer}"""  # noqa: S608  its parts are the constants below; values are bound


def _swept(condition: str, *, order: str) -> str:
    """Rows for one sweep, but those another sweep has locked. ARRAY(…) makes Postgres choose them just once."""
    return f"""job.id = ANY (ARRAY(
    SELECT id FROM generation_jobs WHERE {condition} ORDER BY {order} LIMIT {BATCH} FOR UPDATE SKIP LOCKED))"""  # noqa: S608  as above


_MINE: Final = "status = 'processing' AND job.attempt = call.attempt"
_GOES_ON: Final = f"{_MINE} AND cancel_requested_at IS NULL"
_LEASE_OVER: Final = "status = 'processing' AND lease_expires_at < now() AND now() >= %(not_before)s"
_WAITING: Final = "status = 'pending' AND dispatch_at IS NULL"
_IN_FLIGHT: Final = (
    "(status = 'processing' OR status = 'pending' AND dispatch_at IS NOT NULL)"  # the index has these words
)
_BACK: Final = """status = 'pending', progress = 0, stage = NULL, worker = NULL, task_id = NULL, claim_id = NULL,
  lease_expires_at = NULL, dispatch_at = NULL, dispatches = 0"""
_OVER: Final = "finished_at = now(), lease_expires_at = NULL"
_SAID: Final = "error ->> 'message'"


def _error(code: str, message: str) -> str:
    """An error that we find ourselves, as the workers word theirs."""
    return f"""jsonb_build_object(
    'code', '{code}', 'message', '{message}', 'details', '[]'::jsonb, 'attempt', attempt)"""


# --- what users ask for

# `taken` is one word: of so many conditions Postgres expects that they leave one row, and then compares all that is
# inserted with all their events.
SUBMIT: Final = f"""
WITH {
    _calls(
        "job_type text, prospect_id uuid, value_proposition_id uuid, parameters jsonb, priority job_priority, "
        "time_limit_seconds int, max_attempts int, created_by text, request_id text, traceparent text, "
        "idempotency_key text, see uuid, full_clients uuid[], schedule_id uuid, scheduled_for timestamptz"
    )
}, target AS (
  SELECT call.n, call.id AS job_id, client.id AS client_id, client.archived_at AS client_archived_at,
    prospect.archived_at AS prospect_archived_at,
    proposition.client_id AS proposition_client_id, proposition.archived_at AS proposition_archived_at,
    client.id = ANY (call.full_clients) AS client_full,
    proposition.client_id = client.id AND (call.see IS NULL OR client.id = call.see)
      AND NOT client.id = ANY (call.full_clients) AND client.archived_at IS NULL AND prospect.archived_at IS NULL
      AND proposition.archived_at IS NULL AS taken
  FROM call
  JOIN prospects AS prospect ON prospect.id = call.prospect_id
  JOIN clients AS client ON client.id = prospect.client_id
  LEFT JOIN value_propositions AS proposition ON proposition.id = call.value_proposition_id
), job AS (
  INSERT INTO generation_jobs (id, job_type, client_id, prospect_id, value_proposition_id, parameters, priority,
    time_limit_seconds, max_attempts, created_by, request_id, traceparent, idempotency_key, schedule_id,
    scheduled_for, event_seq)
  SELECT call.id, job_type, client_id, prospect_id, value_proposition_id, parameters, priority,
    time_limit_seconds, max_attempts, created_by, request_id, traceparent, idempotency_key, schedule_id,
    scheduled_for, 1
  FROM target JOIN call USING (n)
  WHERE taken
  ON CONFLICT DO NOTHING
  RETURNING *
), event AS (
  INSERT INTO job_events (job_id, seq, kind, status, progress, message)
  SELECT id, 1, 'submitted', status, 0, '' FROM job
  RETURNING job_id, seq, kind, at
){_DELIVERIES}
SELECT target.n, target.client_id AS target_client_id, client_full, client_archived_at, prospect_archived_at,
  proposition_client_id, proposition_archived_at, job.*
FROM target LEFT JOIN job ON job.id = target.job_id"""  # noqa: S608  constants

CANCEL: Final = _move(
    "CASE status WHEN 'cancelled' THEN 'cancelled' ELSE 'cancel_requested' END",
    """status = CASE status WHEN 'pending' THEN 'cancelled' ELSE status END,
  finished_at = CASE status WHEN 'pending' THEN now() END, cancel_requested_at = now()""",
    """status IN ('pending', 'processing') AND cancel_requested_at IS NULL
    AND (call.see IS NULL OR client_id = call.see)""",
    calls="see uuid",
)
# The attempts go on counting, as they fence: an answer of the old series is older than any of the new.
RETRY_ANEW: Final = _move(
    "'retried'",
    f"""{_BACK}, series = series + 1, error = NULL, outcome = NULL, cancel_requested_at = NULL, started_at = NULL,
  finished_at = NULL, deadline_at = NULL, run_after = now(), max_attempts = job.attempt + call.attempts""",
    """status IN ('failed', 'cancelled') AND (call.see IS NULL OR client_id = call.see)
    AND NOT client_id = ANY (call.full_clients)""",
    calls="see uuid, attempts int, full_clients uuid[]",
    data="jsonb_build_object('series', series)",
)

# --- what workers ask for

# The same claim again, its answer lost on the way, is the same attempt.
CLAIM: Final = _move(
    "'claimed'",
    """status = 'processing', attempt = job.attempt + (status = 'pending')::int, worker = call.worker,
  task_id = call.task_id, claim_id = call.claim_id, outcome = NULL, error = NULL,
  lease_expires_at = now() + make_interval(secs => call.lease), started_at = coalesce(started_at, now()),
  deadline_at = coalesce(deadline_at, now() + make_interval(secs => time_limit_seconds))""",
    """(status = 'pending' AND run_after <= now() AND job.attempt < max_attempts
    OR status = 'processing' AND job.claim_id = call.claim_id AND cancel_requested_at IS NULL)""",
    calls="worker text, task_id text, claim_id uuid, lease float",
    events="(status = 'pending')::int",
    data="jsonb_build_object('worker', worker, 'attempt', attempt)",
    answer="""
SELECT job.*, event_seq > seq_before AS is_new, extract(epoch FROM now() - job.run_after)::float AS waited,
  client.name AS client_name, prospect.name AS prospect_name, proposition.name AS value_proposition_name,
  proposition.content AS value_proposition
FROM job
JOIN clients AS client ON client.id = job.client_id
JOIN prospects AS prospect ON prospect.id = job.prospect_id
JOIN value_propositions AS proposition ON proposition.id = job.value_proposition_id""",
)
# A report that is older than the last one renews the lease and no more; one that says nothing new makes no event.
PROGRESS: Final = _move(
    "'progress'",
    """lease_expires_at = now() + make_interval(secs => call.lease),
  stage = CASE WHEN call.progress >= job.progress THEN call.stage ELSE job.stage END,
  progress = greatest(job.progress, call.progress)""",
    _GOES_ON,
    calls="attempt numeric, lease float, progress int, stage text, message text",
    events="""(call.progress > job.progress
    OR call.progress = job.progress AND (job.stage IS DISTINCT FROM call.stage OR call.message <> ''))::int""",
    message="(SELECT call.message FROM call WHERE call.n = job.n)",
    also="",
    answer="SELECT n FROM job",
)
COMPLETE: Final = _move(
    "'completed'",
    f"""status = 'completed', progress = 100, document_id = call.document_id, error = NULL, outcome = call.outcome,
  {_OVER}""",
    _GOES_ON,
    calls="attempt numeric, outcome text, document_id uuid, content jsonb",
    also=f"""{_DELIVERIES}, document AS (
  INSERT INTO documents (id, job_id, client_id, prospect_id, value_proposition_id, content)
  SELECT job.document_id, job.id, client_id, prospect_id, value_proposition_id, content FROM job JOIN call USING (n)
)""",  # noqa: S608  a constant
)
RETRY: Final = _move(
    "'retrying'",
    f"""{_BACK}, error = call.error, outcome = call.outcome,
  run_after = now() + make_interval(secs => call.delay)""",
    f"{_GOES_ON} AND job.attempt < max_attempts",
    calls="attempt numeric, outcome text, error jsonb, delay float",
    message=_SAID,
    data="error",
)
FAIL: Final = _move(
    "'failed'",
    f"status = 'failed', error = call.error, outcome = call.outcome, {_OVER}",
    _GOES_ON,
    calls="attempt numeric, outcome text, error jsonb",
    message=_SAID,
    data="error",
)
RELEASE: Final = _move(  # the attempt does not count: the limit moves up by one, the fencing token stays
    "'released'",
    f"""{_BACK}, outcome = call.outcome, max_attempts = max_attempts + 1,
  run_after = now() + make_interval(secs => call.delay)""",
    _GOES_ON,
    calls="attempt numeric, outcome text, delay float",
)
STOP: Final = _move(
    "'cancelled'",
    f"status = 'cancelled', outcome = call.outcome, {_OVER}",
    _MINE,
    calls="attempt numeric, outcome text",
)
STOP_IF_ASKED: Final = _move(
    "'cancelled'",
    f"status = 'cancelled', outcome = call.outcome, {_OVER}",
    f"{_MINE} AND cancel_requested_at IS NOT NULL",
    calls="attempt numeric, outcome text",
)

# --- what sweeps find

LEASE_LOST: Final = _move(
    "'lease_lost'",
    # not all at once: one of them may be what killed the worker, and would take the others along each time
    f"{_BACK}, outcome = NULL, run_after = now() + random() * interval '0.5 seconds' * 4 ^ least(attempt, 4)",
    _swept(f"{_LEASE_OVER} AND cancel_requested_at IS NULL AND attempt < max_attempts", order="lease_expires_at"),
    message="'The worker fell silent; another attempt follows.'",
)
WORKER_LOST: Final = _move(
    "'failed'",
    f"""status = 'failed', outcome = NULL, {_OVER},
  error = {_error("worker_lost", "The worker fell silent in the last attempt.")}""",
    _swept(f"{_LEASE_OVER} AND cancel_requested_at IS NULL AND attempt >= max_attempts", order="lease_expires_at"),
    message=_SAID,
    data="error",
)
# 9 s and a sweep each second: a job asked to cancel is over within 10 s, whatever its worker does
STOP_SILENT: Final = _move(
    "'cancelled'",
    f"status = 'cancelled', outcome = NULL, {_OVER}",
    _swept(
        """status = 'processing' AND (cancel_requested_at < now() - interval '9 seconds'
    OR cancel_requested_at IS NOT NULL AND lease_expires_at < now())""",
        order="lease_expires_at",
    ),
)
# Its worker hears of it at its next report, which is refused as any of an attempt that is over.
TIME_OUT: Final = _move(
    "'failed'",
    f"""status = 'failed', outcome = NULL, {_OVER},
  error = {_error("timed_out", "The job took longer than its time limit.")}""",
    _swept(
        "status IN ('pending', 'processing') AND deadline_at <= now() AND cancel_requested_at IS NULL",
        order="deadline_at",
    ),
    message=_SAID,
    data="error",
)

# --- messages

# Of each client's due jobs as many as it may still have in flight, by priority and age. The recursion is a loose index
# scan: one step a client, however many jobs wait. `place` is the job's among its client's in flight: 1 goes into the
# lane that overtakes, so a client's first job does not wait behind another's thousand. One admits at a time: who takes
# the lock first, in the same transaction, sees what was committed before.
LOCK_ADMISSION: Final = f"""
SELECT set_config('transaction_timeout', '10s', true), pg_advisory_xact_lock({ADMISSION_LOCK})"""
ADMIT: Final = f"""
WITH RECURSIVE waiting AS (
  (SELECT client_id FROM generation_jobs WHERE {_WAITING} ORDER BY client_id LIMIT 1)
  UNION ALL
  SELECT (SELECT job.client_id FROM generation_jobs AS job
    WHERE {_WAITING} AND job.client_id > waiting.client_id ORDER BY job.client_id LIMIT 1)
  FROM waiting WHERE client_id IS NOT NULL
), client AS (
  SELECT client_id, (SELECT count(*) FROM generation_jobs AS job
    WHERE job.client_id = waiting.client_id AND {_IN_FLIGHT}) AS in_flight
  FROM waiting WHERE client_id IS NOT NULL
), chosen AS (
  SELECT next.id, in_flight + row_number() OVER (PARTITION BY client_id ORDER BY next.priority, next.id) AS place
  FROM client CROSS JOIN LATERAL (
    SELECT id, priority FROM generation_jobs AS job
    WHERE job.client_id = client.client_id AND {_WAITING} AND run_after <= now()
    ORDER BY priority, id LIMIT greatest(%(limit)s - in_flight, 0)
  ) AS next
  ORDER BY place LIMIT {BATCH}
)
UPDATE generation_jobs AS job SET dispatches = 1, dispatch_at = now() + interval '2 seconds'
FROM chosen WHERE job.id = chosen.id AND CASE WHEN {_WAITING} THEN true END
RETURNING job.id, request_id, traceparent, priority, place"""  # noqa: S608  constants

# A message that nobody has taken for 2, 2, 4, 8 and then every 10 seconds is sent again while some are `lost`: the
# queue holds fewer than there are jobs to claim. While none is, they wait behind others; yet after 40 seconds, and then
# twice as long each time, one is sent again all the same, for those that are twice in the queue hide one that is lost.
_DUE_AGAIN: Final = """status = 'pending' AND dispatch_at <= now()
      AND (%(lost)s OR dispatch_at <= now() - interval '20 seconds' * 2 ^ least(dispatches, 10))"""
RESEND: Final = f"""
UPDATE generation_jobs AS job SET dispatches = dispatches + 1,
  dispatch_at = now() + least(interval '2 seconds' * 2 ^ least(dispatches - 1, 10), interval '10 seconds')
WHERE {_swept(_DUE_AGAIN, order="dispatch_at")}
RETURNING id, request_id, traceparent, priority, 1 + (SELECT count(*) FROM (
  SELECT FROM generation_jobs AS other WHERE other.client_id = job.client_id AND other.id <> job.id AND {_IN_FLIGHT}
  LIMIT 1) AS other) AS place"""  # noqa: S608  a constant
SENT: Final = "SELECT count(*) AS jobs FROM generation_jobs WHERE status = 'pending' AND dispatch_at IS NOT NULL"
NOT_SENT: Final = """
UPDATE generation_jobs SET dispatch_at = now(), dispatches = 1
WHERE id = ANY (%(ids)s) AND status = 'pending' AND dispatch_at IS NOT NULL"""
ALL_LOST: Final = "UPDATE generation_jobs SET dispatch_at = now() WHERE status = 'pending' AND dispatch_at > now()"

# --- looking

NOW: Final = "SELECT now() AS now"
READ: Final = f"""
WITH call AS (SELECT * FROM jsonb_to_recordset(%(calls)s::jsonb) AS call (n int, id uuid))
SELECT n, {", ".join(JobPublic.model_fields)} FROM call JOIN generation_jobs USING (id)"""  # noqa: S608  a constant
STATE: Final = "SELECT status, document_id, attempt, outcome, job_type FROM generation_jobs WHERE id = %(id)s"
BACKLOG: Final = """
SELECT client_id, count(*) AS jobs, count(*) FILTER (WHERE run_after <= now()) AS due,
  extract(epoch FROM max(now() - run_after))::float AS oldest
FROM generation_jobs WHERE status = 'pending' GROUP BY client_id"""
