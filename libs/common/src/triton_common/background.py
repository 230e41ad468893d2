"""Tasks that go on beside a service's work, and their end."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

_PATIENCE: Final = 0.2  # seconds until a task that goes on is cancelled once more


async def stop(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended. redis-py sends by asyncio.wait_for, which in Python 3.11 hides a cancellation
    that comes together with a result (python/cpython#86296): one in a hundred was lost when this was measured."""
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=_PATIENCE)


@asynccontextmanager
async def in_background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run them until the context ends."""
    tasks = {asyncio.create_task(coroutine) for coroutine in coroutines}
    try:
        yield
    finally:
        await stop(tasks)
