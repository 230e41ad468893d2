"""create_task_queue(): the implementation that a URL's scheme names."""

from fastapi import FastAPI

from triton_common.queue.base import TaskQueue
from triton_common.queue.celery import CeleryTaskQueue
from triton_common.queue.memory import MemoryTaskQueue


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
    """Readiness: the queue in `app.state.queue` can be reached."""
    queue: TaskQueue = app.state.queue
    await queue.ping()
