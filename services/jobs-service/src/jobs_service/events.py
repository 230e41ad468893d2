"""A job's events: its history in pages, and streams of what happens.

A stream holds no connection: one query a turn asks for what is new to all of them.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

from loguru import logger
from pydantic import ValidationError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sse_starlette import ServerSentEvent

from jobs_service.jobs import FINAL
from jobs_service.models import JobEvent
from jobs_service.schemas.jobs import JobEventPublic
from jobs_service.statements import Row, batched, rows
from triton_common.db import Database
from triton_common.pages import InvalidCursor, decode_cursor, encode_cursor
from triton_common.schemas import Page

LAST_SEQ: Final = 2**31 - 1  # as far as the column goes
TURN: Final = 0.2  # seconds between two queries: how much later than Postgres a stream knows
AT_ONCE: Final = 100  # events that a stream gets at once: what a slow reader keeps in memory

_NEW: Final = """
SELECT wanted.number, event.seq, event.at, event.kind, event.status, event.progress, event.stage, event.message,
  event.seq = job.event_seq AS is_last
FROM unnest(%(jobs)s::uuid[], %(after)s::int[]) WITH ORDINALITY AS wanted (job_id, after, number)
CROSS JOIN LATERAL (
  SELECT * FROM job_events AS event WHERE event.job_id = wanted.job_id AND event.seq > wanted.after
  ORDER BY event.seq LIMIT %(limit)s
) AS event
JOIN generation_jobs AS job ON job.id = wanted.job_id
ORDER BY wanted.number, event.seq"""

_LAST: Final = """
WITH call AS (SELECT * FROM jsonb_to_recordset(%(calls)s::jsonb) AS call (n int, id uuid))
SELECT n, event_seq, status FROM call JOIN generation_jobs USING (id)"""


async def history(session: AsyncSession, job_id: UUID, *, limit: int, cursor: str | None) -> Page[JobEventPublic]:
    """A page of what has happened, oldest first. Raises InvalidCursor."""
    query = select(JobEvent).where(col(JobEvent.job_id) == job_id, col(JobEvent.seq) > _after(cursor))
    found = (await session.exec(query.order_by(col(JobEvent.seq)).limit(limit + 1))).all()
    page = [JobEventPublic.model_validate(event) for event in found[:limit]]
    return Page(items=page, next_cursor=encode_cursor(str(page[-1].seq)) if len(found) > limit else None)


def _after(cursor: str | None) -> int:
    [text] = decode_cursor(cursor, length=1) if cursor is not None else ["0"]
    seq = _seq(text)
    if seq is None:
        raise InvalidCursor
    return seq


def last_seen(last_event_id: str) -> int:
    """The event that a reader of a stream names as its last; 0, before the first, when it names none that could be."""
    return _seq(last_event_id) or 0


def _seq(text: str) -> int | None:
    is_one = text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= LAST_SEQ
    return int(text) if is_one else None


async def position(database: Database, job_id: UUID, last_event_id: int) -> int | None:
    """After which event a stream begins; None when the job is over and nothing follows."""
    job = await batched(database, _LAST, {"id": job_id}, shared=True)  # when a service is back, all streams are at once
    assert job is not None  # noqa: S101  the caller has read it, and jobs are not deleted
    over = job["status"] in FINAL and last_event_id >= job["event_seq"]
    return None if over else min(last_event_id, job["event_seq"])


class Watch:
    """One stream's place in one job's events."""

    def __init__(self, job_id: UUID, *, after: int, until: float) -> None:
        self.job_id = job_id
        self.after = after
        self.until = until
        self.new: asyncio.Queue[JobEventPublic | None] = asyncio.Queue()  # never more than AT_ONCE and the None
        self.over = False

    def end(self) -> None:
        """Let the stream end after what it has."""
        self.over = True
        self.new.put_nowait(None)


class Follower:
    """Brings new events to all open streams of this process, until `draining` is set."""

    def __init__(self, database: Database, draining: asyncio.Event) -> None:
        self._database = database
        self._draining = draining
        self._watches: set[Watch] = set()
        self._wake = asyncio.Event()

    @contextmanager
    def watch(self, job_id: UUID, *, after: int, until: float) -> Iterator[Watch]:
        """A watch of what comes after event `after`. None in its queue means that no more will come: the job is over,
        it is `until` (Unix time), or the service stops."""
        watch = Watch(job_id, after=after, until=until)
        self._watches.add(watch)
        self._wake.set()
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    async def run(self) -> None:
        """Ask until cancelled; with no stream open, ask nothing."""
        while True:
            if not self._watches:
                await self._wake.wait()
            self._wake.clear()
            now = time.time()
            for watch in self._watches:
                if not watch.over and (self._draining.is_set() or watch.until <= now):
                    watch.end()
            await self._ask()
            with suppress(TimeoutError):
                async with asyncio.timeout(TURN):
                    await self._wake.wait()  # a new stream does not wait for its turn

    async def _ask(self) -> None:
        """One query for all streams that have taken what they had: one whose reader is slow gets no more until then.
        Streams at the same place of a job are one to the query."""
        places: dict[tuple[UUID, int], list[Watch]] = defaultdict(list)
        for watch in self._watches:
            if not watch.over and watch.new.empty():
                places[watch.job_id, watch.after].append(watch)
        if not places:
            return
        wanted = {"jobs": [job for job, _ in places], "after": [after for _, after in places], "limit": AT_ONCE}
        try:
            found = await rows(self._database, _NEW, wanted)
        except Exception as error:  # noqa: BLE001  streams wait for the database, and go on without a gap
            logger.bind(error=type(error).__name__).warning("events could not be read")
            return
        waiting = list(places.values())
        for new in found:
            _hand_out(new, waiting[new.pop("number") - 1])


def _hand_out(new: Row, watches: list[Watch]) -> None:
    """Give an event to the streams that wait for it."""
    is_last = new.pop("is_last")
    try:
        event = JobEventPublic.model_validate(new)
    except ValidationError as error:  # of a newer release: the stream is opened again there
        logger.bind(kind=new["kind"], errors=error.error_count()).error("event is not readable")
        event = None
    for watch in watches:
        if watch.over:
            continue
        if event is not None:
            watch.after = event.seq
            watch.new.put_nowait(event)
        # a final event that is not the last was followed by a user's retry
        if event is None or (is_last and event.status in FINAL):
            watch.end()


Allowed = Callable[[], Awaitable[bool]]
"""Whether a stream's reader may go on reading."""


async def stream(
    follower: Follower, job_id: UUID, *, after: int, until: float, allowed: Allowed, every: float
) -> AsyncIterator[ServerSentEvent]:
    """The job's events after number `after`, as they happen, up to the one that ends it, to `until` (Unix time), or to
    a no of `allowed`, which is asked `every` so many seconds. A comment tells of the last two."""
    check_at = time.monotonic() + every
    with follower.watch(job_id, after=after, until=until) as watch:
        while True:
            if time.monotonic() >= check_at:
                if not await allowed():
                    logger.info("stream ended: its token is revoked")
                    yield ServerSentEvent(comment="the token is revoked")
                    return
                check_at = time.monotonic() + every
            try:
                async with asyncio.timeout(check_at - time.monotonic()):
                    event = await watch.new.get()
            except TimeoutError:
                continue
            if event is None:
                break
            yield ServerSentEvent(data=event.model_dump_json(), id=str(event.seq))
    if until <= time.time():
        yield ServerSentEvent(comment="the token is expired")
