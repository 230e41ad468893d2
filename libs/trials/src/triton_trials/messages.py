"""The messages that wait in Redis for a worker, read as Celery writes them."""

import json
from base64 import b64decode
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from redis.asyncio import Redis

from triton_common.messages import RunJob
from triton_common.queue.base import PRIORITIES
from triton_common.queue.celery import lane

LANES: Final = [lane(RunJob.queue, priority) for priority in PRIORITIES]


class Messages:
    """Those of the Redis at a URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def waiting(self) -> int:
        """How many there are."""
        async with Redis.from_url(self._url) as redis, redis.pipeline() as together:
            for name in LANES:
                together.llen(name)
            return sum(await together.execute())

    async def jobs(self) -> frozenset[UUID]:
        """The jobs that they are for."""
        async with Redis.from_url(self._url) as redis, redis.pipeline() as together:
            for name in LANES:
                together.lrange(name, 0, -1)
            return _jobs(await together.execute())

    async def flush(self) -> frozenset[UUID]:
        """FLUSHALL. The jobs whose messages went: there at this one moment, and not after it."""
        async with Redis.from_url(self._url) as redis, redis.pipeline() as together:
            for name in LANES:
                together.lrange(name, 0, -1)
            together.flushall()
            for name in LANES:
                together.lrange(name, 0, -1)
            answers = await together.execute()
        return _jobs(answers[: len(LANES)]) - _jobs(answers[-len(LANES) :])


def _jobs(lists: Sequence[Sequence[bytes]]) -> frozenset[UUID]:
    bodies = [json.loads(b64decode(json.loads(message)["body"])) for messages in lists for message in messages]
    return frozenset(UUID(arguments["job_id"]) for _, arguments, _ in bodies)
