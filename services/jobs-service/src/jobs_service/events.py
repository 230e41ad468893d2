"""A job's events: its history in pages, and streams of what happens.

A stream holds no connection: one query a turn asks for what is new to all of them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

from loguru import logger
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sse_starlette import ServerSentEvent

from jobs_service.jobs import FINAL
from jobs_service.models import JobEvent
from jobs_service.schemas import JobEventPublic
from jobs_service.statements import row, rows
from triton_common.db import Database
from triton_common.pages import InvalidCursor, decode_cursor, encode_cursor
from triton_common.schemas import Page

LAST_SEQ: Final = 2**31 - 1  # as far as the column goes
TURN: Final = 0.2  # seconds between two queries: how much later than Postgres a stream knows

_NEW = """
SELECT wanted.number, event.seq, event.at, event.kind, event.status, event.progress, event.stage, event.message
FROM unnest(%(jobs)s::uuid[], %(after)s::int[]) WITH ORDINALITY AS wanted (job_id, after, number)
JOIN job_events AS event ON event.job_id = wanted.job_id AND event.seq > wanted.after
ORDER BY wanted.number, event.seq"""

_LAST = "SELECT event_seq, status FROM generation_jobs WHERE id = %(id)s"


async def history(session: AsyncSession, job_id: UUID, *, limit: int, cursor: str | None) -> Page[JobEventPublic]:
    """A page of what has happened, oldest first. Raises InvalidCursor."""
    query = select(JobEvent).where(col(JobEvent.job_id) == job_id, col(JobEvent.seq) > _after(cursor))
    found = (await session.exec(query.order_by(col(JobEvent.seq)).limit(limit + 1))).all()
    page = [JobEventPublic.model_validate(event) for event in found[:limit]]
    return Page(items=page, next_cursor=encode_cursor(str(page[-1].seq)) if len(found) > limit else None)


def _after(cursor: str | None) -> int:
    [seq] = decode_cursor(cursor, length=1) if cursor is not None else ["0"]
    if not (seq.isascii() and seq.isdigit() and len(seq) <= 10 and int(seq) <= LAST_SEQ):
        raise InvalidCursor
    return int(seq)


async def position(database: Database, job_id: UUID, last_event_id: int) -> int | None:
    """After which event a stream begins; None when the job is over and nothing follows."""
    job = await row(database, _LAST, {"id": job_id})
    assert job is not None  # noqa: S101  the caller has read it, and jobs are not deleted
    over = job["status"] in FINAL and last_event_id >= job["event_seq"]
    return None if over else min(last_event_id, job["event_seq"])


class Watch:
    """One stream's place in one job's events."""

    def __init__(self, job_id: UUID, after: int) -> None:
        self.job_id = job_id
        self.after = after
        self.new: asyncio.Queue[JobEventPublic | None] = asyncio.Queue()


class Follower:
    """Brings new events to all open streams of this process, until `draining` is set."""

    def __init__(self, database: Database, draining: asyncio.Event) -> None:
        self._database = database
        self._draining = draining
        self._watches: set[Watch] = set()
        self._wake = asyncio.Event()

    @contextmanager
    def watch(self, job_id: UUID, *, after: int) -> Iterator[Watch]:
        """A watch of what comes after event `after`; None in its queue means that no more will come."""
        watch = Watch(job_id, after)
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
            if self._draining.is_set():
                for watch in self._watches:
                    watch.new.put_nowait(None)
            else:
                await self._ask()
            with suppress(TimeoutError):
                async with asyncio.timeout(TURN):
                    await self._wake.wait()

    async def _ask(self) -> None:
        watches = list(self._watches)
        wanted = {"jobs": [watch.job_id for watch in watches], "after": [watch.after for watch in watches]}
        try:
            found = await rows(self._database, _NEW, wanted)
        except Exception as error:  # noqa: BLE001  streams wait for the database, and go on without a gap
            logger.bind(error=type(error).__name__).warning("events could not be read")
            return
        for event_row in found:
            watch = watches[event_row.pop("number") - 1]
            event = JobEventPublic.model_validate(event_row)
            watch.after = event.seq
            watch.new.put_nowait(event)


async def stream(follower: Follower, job_id: UUID, *, after: int) -> AsyncIterator[ServerSentEvent]:
    """The job's events after number `after`, as they happen, up to the one that ends it."""
    with follower.watch(job_id, after=after) as watch:
        while (event := await watch.new.get()) is not None:
            yield ServerSentEvent(data=event.model_dump_json(), id=str(event.seq))
            if event.status in FINAL:
                return
