"""Whether a worker answers: the API's readiness, found out by a ping through the queue that jobs go through."""

import asyncio
from contextvars import Context
from math import inf
from time import monotonic
from typing import Final

from fastapi import FastAPI

from triton_common import db
from triton_common.app import Degraded
from triton_common.background import stop
from triton_common.messages import Ping
from triton_common.queue.base import QueueUnavailable, TaskQueue, TaskStatus

GOOD_FOR: Final = 5.0  # seconds that an answer counts
PATIENCE: Final = 0.8  # seconds for a ping; triton_common.app gives a check two
GIVEN_UP: Final = 60.0  # seconds; a ping that is longer on its way may be lost with Redis' memory
PAUSE: Final = 0.02  # seconds between two looks at a ping; it doubles
LONGEST_PAUSE: Final = 0.5


class WorkerWatch:
    """Pings workers when somebody asks and the last answer is old; one ping at a time, however many ask.

    A ping waits its turn behind jobs: without an answer there is no worker, or each of its threads is busy.
    """

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue
        self._ping: asyncio.Task[None] | None = None
        self._sent_at = self._answered_at = -inf

    async def check(self) -> None:
        """Return when a worker has answered of late. Raises Degraded within PATIENCE, at once while a ping waits."""
        if self._is_fresh():
            return
        if self._ping is None or self._ping.done():
            self._sent_at = monotonic()
            # not in the context of this request: its id is not that of who asks next
            self._ping = asyncio.create_task(self._ask(), context=Context())
        await asyncio.wait([self._ping], timeout=max(0.0, self._sent_at + PATIENCE - monotonic()))
        if not self._is_fresh():
            raise Degraded("no worker answers; jobs wait")

    async def close(self) -> None:
        """Wait for no answer any more."""
        if self._ping is not None:
            await stop({self._ping})

    def _is_fresh(self) -> bool:
        return monotonic() - self._answered_at < GOOD_FOR

    async def _ask(self) -> None:
        """Send a ping and wait for its answer. A queue that cannot be reached ends it: the next to ask tries again."""
        try:
            [task_id] = await self._queue.send([Ping()])
            pause = PAUSE
            while await self._queue.status(task_id) is not TaskStatus.COMPLETED:
                if monotonic() - self._sent_at > GIVEN_UP:
                    await self._queue.cancel(task_id)  # so that busy workers find one ping, not one a minute
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        except QueueUnavailable:
            return
        self._answered_at = monotonic()


async def worker(app: FastAPI) -> None:
    """Readiness: a worker takes messages from the queue."""
    watch: WorkerWatch = app.state.worker_watch
    await watch.check()


async def postgres(app: FastAPI) -> None:
    """Readiness: runs can be listed. Documents are made without that."""
    try:
        await db.postgres(app)
    except Exception as error:  # whatever a driver says of a server that is not there
        raise Degraded("runs cannot be listed; jobs run all the same") from error
