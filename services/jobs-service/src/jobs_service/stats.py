"""How many jobs there are in each state, how long they wait, and how many end.

A completed job stays so, and most jobs are completed: what was counted once is remembered, and only what was completed
since is counted. All else is counted each time, in indexes.
"""

from datetime import datetime
from typing import Final
from uuid import UUID
from weakref import WeakKeyDictionary

from jobs_service.schemas.jobs import JobCounts, JobStats, Throughput
from jobs_service.statements import Row, rows
from triton_common.auth import Principal
from triton_common.db import Database

WINDOWS: Final = (60, 300, 3600)  # seconds

# What is five minutes old is settled: a move's time is that of its beginning, and none takes so long to be committed.
_SETTLED: Final = "now() - interval '5 minutes'"
_RECENT: Final = ", ".join(
    f"count(*) FILTER (WHERE status = '{status}' AND finished_at > now() - interval '{seconds} s')"
    f" AS {status}_{seconds}"
    for status in ("completed", "failed", "cancelled")
    for seconds in WINDOWS
)
_STATS: Final = f"""
SELECT client.id AS client_id, {_SETTLED} AS settled_at, live.*, over.*, done.*, recent.*
FROM clients AS client
LEFT JOIN unnest(%(clients)s::uuid[], %(settled_at)s::timestamptz[]) AS known (client_id, settled_at)
  ON known.client_id = client.id
CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE status = 'pending') AS pending,
    count(*) FILTER (WHERE status = 'processing') AS processing,
    extract(epoch FROM now() - min(run_after) FILTER (WHERE status = 'pending' AND run_after <= now()))::float AS waited
  FROM generation_jobs WHERE client_id = client.id AND status IN ('pending', 'processing')
) AS live
CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE status = 'failed') AS failed, count(*) FILTER (WHERE status = 'cancelled') AS cancelled
  FROM generation_jobs WHERE client_id = client.id AND status IN ('failed', 'cancelled')
) AS over
CROSS JOIN LATERAL (
  SELECT count(*) AS completed, count(*) FILTER (WHERE finished_at <= {_SETTLED}) AS settled
  FROM generation_jobs
  WHERE client_id = client.id AND status = 'completed' AND finished_at > coalesce(known.settled_at, '-infinity')
) AS done
CROSS JOIN LATERAL (
  SELECT {_RECENT}
  FROM generation_jobs
  WHERE client_id = client.id AND status IN ('completed', 'failed', 'cancelled')
    AND finished_at > now() - interval '{max(WINDOWS)} s'
) AS recent
WHERE %(client_id)s::uuid IS NULL OR client.id = %(client_id)s"""  # noqa: S608  constants

Settled = dict[UUID, tuple[datetime, int]]
"""Of clients: up to when, and how many jobs were completed by then."""

_settled: WeakKeyDictionary[Database, Settled] = WeakKeyDictionary()


async def read(database: Database, *, principal: Principal, client_id: UUID | None) -> JobStats:
    """The numbers of a client, or of all that exist for the principal. For the first to ask after a start, every
    completed job is counted: a tenth of a second a million."""
    clients = {client for client in (client_id, principal.client_id) if client is not None}
    settled = _settled.setdefault(database, {})
    known = list(settled.items())
    values = {
        "client_id": next(iter(clients), None),
        "clients": [client for client, _ in known],
        "settled_at": [until for _, (until, _) in known],
    }
    found = await rows(database, _STATS, values) if len(clients) < 2 else []
    before = dict(known)
    for client in found:
        _, earlier = before.get(client["client_id"], (None, 0))
        settled[client["client_id"]] = client["settled_at"], earlier + client["settled"]
        client["completed"] += earlier
    return JobStats(
        counts=JobCounts.model_validate(
            {status: sum(client[status] for client in found) for status in JobCounts.model_fields}
        ),
        oldest_pending_seconds=max(
            (client["waited"] for client in found if client["waited"] is not None), default=None
        ),
        throughput=[_throughput(found, seconds) for seconds in WINDOWS],
    )


def _throughput(found: list[Row], seconds: int) -> Throughput:
    ended = {
        status: sum(client[f"{status}_{seconds}"] for client in found)
        for status in ("completed", "failed", "cancelled")
    }
    return Throughput(window_seconds=seconds, completed_per_minute=ended["completed"] * 60 / seconds, **ended)
