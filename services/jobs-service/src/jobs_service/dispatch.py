"""Admits jobs and sends their messages, from one task of its own: no request waits for Redis, dead or frozen."""

import asyncio
from contextlib import suppress
from itertools import groupby
from typing import Final

from loguru import logger

from jobs_service import jobs, moves
from jobs_service.backlog import Backlog
from jobs_service.jobs import Admitted
from triton_common.db import Database, DatabaseUnavailable
from triton_common.messages import RunJob
from triton_common.queue.base import QueueUnavailable, TaskQueue

TURN: Final = 1.0  # seconds after which it looks for itself: other processes submit and finish too
PAUSE: Final = 0.01  # seconds between two turns: what comes meanwhile goes in one statement and one round trip


class Dispatcher:
    """Sends all messages that wait in one round trip a lane. Whatever is lost it sends again: the row is the truth."""

    def __init__(self, database: Database, queue: TaskQueue, backlog: Backlog, *, per_client: int) -> None:
        self._database = database
        self._queue = queue
        self._backlog = backlog
        self._per_client = per_client
        self._reachable = True
        self._incarnation = ""  # of the queue that holds our messages
        self._short = False  # whether it held too few of them when we last looked

    async def run(self) -> None:
        """Send until cancelled: at once what is submitted here, and each second what the queue has lost."""
        loop = asyncio.get_running_loop()
        look_again = loop.time()
        while True:
            self._backlog.changed.clear()
            try:
                await self.admit()
                if loop.time() >= look_again:
                    look_again = loop.time() + TURN
                    await self.resend()
            except DatabaseUnavailable:
                logger.warning("there is no database to dispatch from")
            except Exception as error:  # noqa: BLE001  one bad message must not end the sending
                logger.opt(exception=error).error("messages could not be sent")
            await asyncio.sleep(PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(look_again):
                    await self._backlog.changed.wait()

    async def admit(self) -> None:
        """Send the messages of all jobs that may be in flight from now on."""
        while admitted := await jobs.admit(self._database, per_client=self._per_client):
            if not await self._send(admitted) or len(admitted) < moves.BATCH:
                return

    async def resend(self) -> None:
        """Send messages again: of jobs that should have been claimed by now; of all, when the queue has lost them."""
        try:
            incarnation = await self._queue.incarnation()
            short = await self._queue.waiting(RunJob.queue) < await jobs.sent(self._database)
        except QueueUnavailable:
            self._note(reachable=False)
            self._short = True
            return
        if incarnation != self._incarnation:
            await jobs.all_lost(self._database)
            self._incarnation = incarnation
            self._short = True
        lost, self._short = short and self._short, short  # twice: one may be between the queue and its claim
        while admitted := await jobs.due_again(self._database, lost=lost):
            if not await self._send(admitted):
                return

    async def _send(self, admitted: list[Admitted]) -> bool:
        """Whether the queue took them all; those it did not take are due again."""
        sent = 0
        try:
            for lane, members in groupby(admitted, key=lambda job: job.lane):
                messages = [job.message for job in members]
                await self._queue.send(messages, priority=lane)
                sent += len(messages)
        except QueueUnavailable:
            self._note(reachable=False)
            self._short = True
        else:
            self._note(reachable=True)
            return True
        await jobs.not_sent(self._database, [job.message.job_id for job in admitted[sent:]])
        return False

    def _note(self, *, reachable: bool) -> None:
        """Log the change between reachable and not, not each failure."""
        if self._reachable and not reachable:
            logger.warning("queue unavailable; jobs wait for it")
        if reachable and not self._reachable:
            logger.info("queue available again")
        self._reachable = reachable
