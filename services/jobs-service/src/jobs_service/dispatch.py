"""Sends jobs' messages to the queue from one task of its own: no request waits for Redis, dead or frozen."""

import asyncio
from typing import Final

from loguru import logger

from triton_common.messages import RunJob
from triton_common.queue.base import QueueUnavailable, TaskQueue

LIMIT: Final = 10_000  # messages that wait in memory; what goes beyond is left to the sweep


class Dispatcher:
    """Sends all messages that wait in one round trip. Whatever it drops, the sweep sends: the row is the truth."""

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue
        self._waiting: list[RunJob] = []
        self._wake = asyncio.Event()
        self._reachable = True

    def push(self, message: RunJob) -> None:
        """Have the message sent soon. Never waits, never fails."""
        if len(self._waiting) < LIMIT:
            self._waiting.append(message)
            self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.flush()
            except Exception as error:  # noqa: BLE001  one bad message must not end the sending
                logger.opt(exception=error).error("messages could not be sent")

    async def flush(self) -> None:
        """Send what waits now."""
        batch, self._waiting = self._waiting, []
        await self.send(batch)

    async def send(self, batch: list[RunJob]) -> bool:
        """Whether the queue took the batch. Logs the change between reachable and not, not each failure."""
        try:
            await self._queue.send(batch)
        except QueueUnavailable:
            if self._reachable:
                logger.bind(jobs=len(batch)).warning("queue unavailable; the sweep will send the jobs again")
            self._reachable = False
            return False
        if not self._reachable:
            logger.bind(jobs=len(batch)).info("queue available again")
        self._reachable = True
        return True
