"""Lists of jobs by filter, and what is done to all jobs that a filter finds.

Each index for lists holds (status, priority, created_at, id) behind what a job belongs to: of one status and one
priority, the newest jobs are the next entries of an index, however many others there are. A list takes a page's worth
of each pair that the filter allows and merges them, so it costs the same among a thousand jobs and a million, also when
it finds few or none (ADR 017).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, Literal
from uuid import UUID

from jobs_service.moves import BATCH
from jobs_service.schemas.jobs import JobFilter, JobPublic, JobsChanged, JobSelection
from jobs_service.statements import rows
from triton_common.auth import Principal
from triton_common.db import Database
from triton_common.pages import InvalidCursor, decode_cursor, encode_cursor
from triton_common.schemas import JobPriority, JobStatus, Page

MOST_AT_ONCE: Final = 10_000  # jobs that a call changes; it takes some seconds
CANCELLABLE: Final = (JobStatus.PENDING, JobStatus.PROCESSING)
RETRYABLE: Final = (JobStatus.FAILED, JobStatus.CANCELLED)

Position = tuple[datetime, UUID]
"""A job's place in a list: when it was made, and its id."""

Codes = Literal["all", "exact", "prefix"]

# What a job belongs to, the narrowest first: a schedule's jobs are of one prospect, a prospect's of one client.
_OWNERS: Final = ("schedule_id", "prospect_id", "client_id")
_COLUMNS: Final = ", ".join(f"job.{field}" for field in JobPublic.model_fields)
_CODE: Final = "(job.error ->> 'code')"  # as the indexes have it


async def page(
    database: Database, wanted: JobFilter, *, principal: Principal, limit: int, cursor: str | None
) -> Page[JobPublic]:
    """A page of the jobs that meet the filter and exist for the principal, newest first. Raises InvalidCursor."""
    before = None if cursor is None else _position(cursor)
    # one more than asked for tells whether there is a next page
    found = await _newest(database, wanted, principal=principal, limit=limit + 1, before=before)
    shown = found[:limit]
    return Page(items=shown, next_cursor=_cursor(shown[-1]) if len(found) > limit else None)


def _cursor(job: JobPublic) -> str:
    return encode_cursor(job.created_at.isoformat(), str(job.id))


def _position(cursor: str) -> Position:
    created_at, job_id = decode_cursor(cursor, length=2)
    try:
        position = datetime.fromisoformat(created_at), UUID(job_id)
    except ValueError as error:
        raise InvalidCursor from error
    if position[0].tzinfo is None:
        raise InvalidCursor
    return position


async def change(
    database: Database,
    selection: JobSelection,
    *,
    principal: Principal,
    only: Collection[JobStatus],
    move: Callable[[Sequence[JobPublic]], Awaitable[int]],
) -> JobsChanged:
    """Have `move` change the selected jobs that are in one of the states `only`, moves.BATCH at a time; it answers how
    many it changed. No more than MOST_AT_ONCE, and nothing with `dry_run`."""
    matched = changed = 0
    async for found in _batches(database, selection, principal=principal, only=only):
        if matched == MOST_AT_ONCE:
            return JobsChanged(matched=matched, changed=changed, complete=False)
        matched += len(found)
        if not selection.dry_run:
            changed += await move(found)
    return JobsChanged(matched=matched, changed=changed, complete=True)


async def _batches(
    database: Database, selection: JobSelection, *, principal: Principal, only: Collection[JobStatus]
) -> AsyncIterator[Sequence[JobPublic]]:
    """The selected jobs, as they are when it is a batch's turn."""
    statuses = [status for status in only if selection.status is None or status in selection.status]
    if selection.ids is not None:
        ids = sorted(set(selection.ids))
        for start in range(0, len(ids), BATCH):
            values = {"ids": ids[start : start + BATCH], "see": principal.client_id, "statuses": statuses}
            if chosen := await rows(database, _BY_IDS, values):
                yield [JobPublic.model_validate(job) for job in chosen]
        return
    wanted = selection.model_copy(update={"status": statuses})
    before: Position | None = None
    while found := await _newest(database, wanted, principal=principal, limit=BATCH, before=before):
        yield found
        before = found[-1].created_at, found[-1].id


_BY_IDS: Final = f"""
SELECT {_COLUMNS} FROM generation_jobs AS job
WHERE id = ANY (%(ids)s) AND (%(see)s::uuid IS NULL OR client_id = %(see)s) AND status = ANY (%(statuses)s)"""  # noqa: S608  a constant


async def _newest(
    database: Database, wanted: JobFilter, *, principal: Principal, limit: int, before: Position | None
) -> list[JobPublic]:
    clients = {client for client in (wanted.client_id, principal.client_id) if client is not None}
    if len(clients) > 1:
        return []
    owners = {
        "schedule_id": wanted.schedule_id,
        "prospect_id": wanted.prospect_id,
        "client_id": next(iter(clients), None),
    }
    if before is None or (wanted.created_before is not None and wanted.created_before <= before[0]):
        end: tuple[datetime | str, UUID] = (wanted.created_before or "infinity", UUID(int=0))
    else:
        end = before
    code = wanted.error_code
    statement = _statement(
        tuple(owner for owner in _OWNERS if owners[owner] is not None),
        codes="all" if code is None else "prefix" if code.endswith("*") else "exact",
        job_type=wanted.job_type is not None,
    )
    values: dict[str, Any] = owners | {
        "statuses": [status.value for status in JobStatus if wanted.status is None or status in wanted.status],
        "priorities": [priority.value for priority in JobPriority if wanted.priority in (None, priority)],
        "job_type": wanted.job_type,
        "code": code and code.rstrip("*"),
        "start": wanted.created_after or "-infinity",
        "end": end[0],
        "end_id": end[1],
        "limit": limit,
    }
    return [JobPublic.model_validate(job) for job in await rows(database, statement, values)]


@cache
def _statement(owners: tuple[str, ...], *, codes: Codes, job_type: bool) -> str:
    """The newest jobs that belong to all `owners`. The narrowest chooses the index; whether its jobs belong to the
    wider ones, a look at any one of them tells."""
    narrowest = [f"job.{owner} = %({owner})s" for owner in owners[:1]]
    wider = [
        f"(SELECT job.{wide} FROM generation_jobs AS job WHERE {narrowest[0]} LIMIT 1) = %({wide})s"  # noqa: S608  below
        for wide in owners[1:]
    ]
    conditions = [
        *narrowest,
        *wider,
        *(["job.error IS NOT NULL", f"{_CODE} = wanted_code"] if codes != "all" else []),
        *(["job.job_type = %(job_type)s"] if job_type else []),
        "job.status = wanted_status",
        "job.priority = wanted_priority",
        "job.created_at >= %(start)s::timestamptz",
        "(job.created_at, job.id) < (%(end)s::timestamptz, %(end_id)s::uuid)",
    ]
    return f"""
{_known_codes(narrowest) if codes == "prefix" else ""}
SELECT {_COLUMNS}
FROM (
  SELECT found.id
  FROM unnest(%(statuses)s::text[]) AS wanted_status
  CROSS JOIN unnest(%(priorities)s::job_priority[]) AS wanted_priority
  {_FROM_CODES[codes]}
  CROSS JOIN LATERAL (
    SELECT job.id, job.created_at FROM generation_jobs AS job WHERE {" AND ".join(conditions)}
    ORDER BY job.created_at DESC, job.id DESC LIMIT %(limit)s
  ) AS found
  ORDER BY found.created_at DESC, found.id DESC LIMIT %(limit)s
) AS listed
JOIN generation_jobs AS job USING (id)
ORDER BY job.created_at DESC, job.id DESC"""  # noqa: S608  its parts are the constants here; values are bound


_FROM_CODES: Final[dict[Codes, str]] = {
    "all": "",
    "exact": "CROSS JOIN (VALUES (%(code)s::text)) AS exact (wanted_code)",
    "prefix": "CROSS JOIN (SELECT code FROM known WHERE starts_with(code, %(code)s)) AS known (wanted_code)",
}


def _known_codes(conditions: Sequence[str]) -> str:
    """The codes that jobs have: a loose index scan, one step a code, however many jobs have it. Codes are few, and
    which of them begin as wanted is not left to the order of strings, which is each database's own."""
    where = " AND ".join([*conditions, "job.error IS NOT NULL"])
    return f"""
WITH RECURSIVE known (code) AS (
  (SELECT {_CODE} FROM generation_jobs AS job WHERE {where} ORDER BY {_CODE} LIMIT 1)
  UNION ALL
  SELECT (SELECT {_CODE} FROM generation_jobs AS job WHERE {where} AND {_CODE} > known.code ORDER BY {_CODE} LIMIT 1)
  FROM known WHERE known.code IS NOT NULL
)"""  # noqa: S608  as above
