"""The state machine of a job, as the statements that move it; the five hot paths' are among them.

    submit ──► pending ──claim──► processing ──complete─────────────────────► completed
               │  ▲                │  │  └──fail, or lease over, for good────► failed
               │  └─retry, release,┘  └─────asked to cancel, at its next call,
               │    lease over              its lease's end or after 9 s────┐
               └──cancel────────────────────────────────────────────────────┴► cancelled

A move is one UPDATE that names the state, and of a worker the attempt, it starts from, and writes its event with it:
who comes late, twice or second matches no row. `attempt` is the fencing token, one more with each claim. Times are
Postgres' own, so nobody else's clock matters.
"""

from typing import Final

from jobs_service.schemas import JobPublic

BATCH: Final = 500  # rows a sweep locks at once


def _move(
    event: str,
    change: str,
    where: str,
    *,
    message: str = "''",
    data: str = "'{}'::jsonb",
    also: str = "",
    answer: str = "SELECT * FROM job",
) -> str:
    """A fenced UPDATE and its event, in one statement; answers the new row of each job that moved."""
    return f"""
WITH job AS (
  UPDATE generation_jobs SET {change}, event_seq = event_seq + 1 WHERE {where} RETURNING *
), event AS (
  INSERT INTO job_events (job_id, seq, kind, status, progress, stage, message, data)
  SELECT id, event_seq, {event}, status, progress, stage, {message}, {data} FROM job
){also}
{answer}"""  # noqa: S608  its parts are the constants below; values are bound


def _swept(condition: str, *, order: str) -> str:
    """Rows for one sweep, but those another sweep has locked. ARRAY(…) makes Postgres choose them just once."""
    return f"""id = ANY (ARRAY(
    SELECT id FROM generation_jobs WHERE {condition} ORDER BY {order} LIMIT {BATCH} FOR UPDATE SKIP LOCKED))"""  # noqa: S608  as above


_MINE = "id = %(id)s AND status = 'processing' AND attempt = %(attempt)s"
_GOES_ON = f"{_MINE} AND cancel_requested_at IS NULL"
_LEASE_OVER = "status = 'processing' AND lease_expires_at < now() AND now() >= %(not_before)s"
_BACK = """status = 'pending', progress = 0, stage = NULL, worker = NULL, task_id = NULL, lease_expires_at = NULL,
  dispatches = 0"""
_OVER = "finished_at = now(), lease_expires_at = NULL"

SUBMIT: Final = """
WITH target AS (
  SELECT client.id AS client_id, client.archived_at AS client_archived_at,
    prospect.archived_at AS prospect_archived_at,
    proposition.client_id AS proposition_client_id, proposition.archived_at AS proposition_archived_at
  FROM prospects AS prospect
  JOIN clients AS client ON client.id = prospect.client_id
  LEFT JOIN value_propositions AS proposition ON proposition.id = %(value_proposition_id)s
  WHERE prospect.id = %(prospect_id)s
), job AS (
  INSERT INTO generation_jobs (id, job_type, client_id, prospect_id, value_proposition_id, parameters, max_attempts,
    created_by, request_id, traceparent, idempotency_key, event_seq, dispatch_at)
  SELECT %(id)s, %(job_type)s, client_id, %(prospect_id)s, %(value_proposition_id)s, %(parameters)s, %(max_attempts)s,
    %(created_by)s, %(request_id)s, %(traceparent)s, %(idempotency_key)s, 1, now() + interval '2 seconds'
  FROM target
  WHERE proposition_client_id = client_id AND (%(see)s::uuid IS NULL OR client_id = %(see)s)
    AND client_archived_at IS NULL AND prospect_archived_at IS NULL AND proposition_archived_at IS NULL
  ON CONFLICT (id) DO NOTHING
  RETURNING *
), event AS (
  INSERT INTO job_events (job_id, seq, kind, status, progress, message)
  SELECT id, 1, 'submitted', status, 0, '' FROM job
)
SELECT target.client_id AS target_client_id, client_archived_at, prospect_archived_at, proposition_client_id,
  proposition_archived_at, job.*
FROM target LEFT JOIN job ON true"""

CLAIM: Final = _move(
    "'claimed'",
    """status = 'processing', attempt = attempt + 1, worker = %(worker)s, task_id = %(task_id)s, outcome = NULL,
  error = NULL, lease_expires_at = now() + %(lease)s, started_at = coalesce(started_at, now())""",
    "id = %(id)s AND status = 'pending' AND run_after <= now() AND attempt < max_attempts",
    data="jsonb_build_object('worker', worker, 'attempt', attempt)",
    answer="""
SELECT job.*, extract(epoch FROM now() - job.run_after)::float AS waited, client.name AS client_name,
  prospect.name AS prospect_name, proposition.name AS value_proposition_name, proposition.content AS value_proposition
FROM job
JOIN clients AS client ON client.id = job.client_id
JOIN prospects AS prospect ON prospect.id = job.prospect_id
JOIN value_propositions AS proposition ON proposition.id = job.value_proposition_id""",
)

# A report that is older than the last one renews the lease and no more; one that says nothing new makes no event.
PROGRESS: Final = f"""
WITH job AS (
  UPDATE generation_jobs SET
    lease_expires_at = now() + %(lease)s,
    stage = CASE WHEN %(progress)s >= progress THEN %(stage)s ELSE stage END,
    event_seq = event_seq + CASE
      WHEN %(progress)s > progress
        OR %(progress)s = progress AND (stage IS DISTINCT FROM %(stage)s OR %(message)s <> '')
      THEN 1 ELSE 0 END,
    progress = greatest(progress, %(progress)s)
  WHERE {_GOES_ON}
  RETURNING new.*, old.event_seq AS last_seq
), event AS (
  INSERT INTO job_events (job_id, seq, kind, status, progress, stage, message)
  SELECT id, event_seq, 'progress', status, progress, stage, %(message)s FROM job WHERE event_seq > last_seq
)
SELECT id FROM job"""  # noqa: S608  a constant

COMPLETE: Final = _move(
    "'completed'",
    f"""status = 'completed', progress = 100, document_id = %(document_id)s, error = NULL, outcome = %(outcome)s,
  {_OVER}""",
    _GOES_ON,
    also=""", document AS (
  INSERT INTO documents (id, job_id, client_id, prospect_id, value_proposition_id, content)
  SELECT document_id, id, client_id, prospect_id, value_proposition_id, %(content)s FROM job
)""",
)
RETRY: Final = _move(
    "'retrying'",
    f"""{_BACK}, error = %(error)s, outcome = %(outcome)s, run_after = now() + %(delay)s,
  dispatch_at = now() + %(delay)s""",
    f"{_GOES_ON} AND attempt < max_attempts",
    message="error ->> 'message'",
    data="error",
)
FAIL: Final = _move(
    "'failed'",
    f"status = 'failed', error = %(error)s, outcome = %(outcome)s, {_OVER}",
    _GOES_ON,
    message="error ->> 'message'",
    data="error",
)
RELEASE: Final = _move(  # the attempt does not count: the limit moves up by one, the fencing token stays
    "'released'",
    f"{_BACK}, outcome = %(outcome)s, max_attempts = max_attempts + 1, run_after = now(), dispatch_at = now()",
    _GOES_ON,
)
STOP: Final = _move("'cancelled'", f"status = 'cancelled', outcome = %(outcome)s, {_OVER}", _MINE)
STOP_IF_ASKED: Final = _move(
    "'cancelled'",
    f"status = 'cancelled', outcome = %(outcome)s, {_OVER}",
    f"{_MINE} AND cancel_requested_at IS NOT NULL",
)
CANCEL: Final = _move(
    "CASE status WHEN 'cancelled' THEN 'cancelled' ELSE 'cancel_requested' END",
    """status = CASE status WHEN 'pending' THEN 'cancelled' ELSE status END,
  finished_at = CASE status WHEN 'pending' THEN now() END, cancel_requested_at = now()""",
    "id = %(id)s AND status IN ('pending', 'processing') AND cancel_requested_at IS NULL",
)
LEASE_LOST: Final = _move(
    "'lease_lost'",
    f"{_BACK}, outcome = NULL, run_after = now(), dispatch_at = now()",
    _swept(f"{_LEASE_OVER} AND cancel_requested_at IS NULL AND attempt < max_attempts", order="lease_expires_at"),
    message="'The worker fell silent; another attempt follows.'",
)
WORKER_LOST: Final = _move(
    "'failed'",
    f"""status = 'failed', outcome = NULL, {_OVER}, error = jsonb_build_object('code', 'worker_lost',
  'message', 'The worker fell silent in the last attempt.', 'details', '[]'::jsonb, 'attempt', attempt)""",
    _swept(f"{_LEASE_OVER} AND cancel_requested_at IS NULL AND attempt >= max_attempts", order="lease_expires_at"),
    message="error ->> 'message'",
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

NOW: Final = "SELECT now() AS now"

READ: Final = f"SELECT {', '.join(JobPublic.model_fields)} FROM generation_jobs WHERE id = %(id)s"  # noqa: S608  a constant
STATE: Final = "SELECT status, document_id, attempt, outcome FROM generation_jobs WHERE id = %(id)s"

# The first message goes with the submit. It is repeated after 2, 2, 4, 8, 16 and then every 30 seconds: a message that
# waits behind others is doubled a few times, one that Redis lost is missed for half a minute at most.
TAKE_DUE: Final = f"""
UPDATE generation_jobs SET dispatches = dispatches + 1,
  dispatch_at = now() + least(interval '2 seconds' * 2 ^ least(dispatches, 10), interval '30 seconds')
WHERE {_swept("status = 'pending' AND dispatch_at <= now()", order="dispatch_at")}
RETURNING id, request_id, traceparent"""  # noqa: S608  a constant
GIVE_BACK: Final = """
UPDATE generation_jobs SET dispatch_at = now(), dispatches = greatest(dispatches - 1, 0)
WHERE id = ANY (%(ids)s) AND status = 'pending'"""
PENDING: Final = """
SELECT count(*) AS jobs, coalesce(extract(epoch FROM max(now() - run_after)), 0)::float AS oldest
FROM generation_jobs WHERE status = 'pending' AND run_after <= now()"""
