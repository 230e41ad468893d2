"""create_task_queue(): the implementation that a URL's scheme names."""

import asyncio
from typing import Final

from fastapi import FastAPI

from triton_common.app import Degraded
from triton_common.queue.base import QueueUnavailable, TaskQueue
from triton_common.queue.celery import CeleryTaskQueue
from triton_common.queue.memory import MemoryTaskQueue

PATIENCE: Final = 1.0  # seconds; triton_common.app gives a check two


def create_task_queue(url: str) -> TaskQueue:
    """`redis://…` and `rediss://…` → Celery; `memory://` → in this process. Raises ValueError for any other."""
    scheme = url.partition("://")[0]
    match scheme:
        case "redis" | "rediss":
            return CeleryTaskQueue(url)
        case "memory":
            return MemoryTaskQueue()
        case _:
            raise ValueError(f"TASK_QUEUE_URL must begin with redis:// or memory://, not {scheme}://")


async def task_queue(app: FastAPI) -> None:
    """Readiness: the queue in `app.state.queue` can be reached. Without it jobs wait, and nothing is lost."""
    queue: TaskQueue = app.state.queue
    try:
        async with asyncio.timeout(PATIENCE):
            await queue.ping()
    except (QueueUnavailable, TimeoutError) as error:
        raise Degraded("jobs are taken, and run when the queue is back") from error
