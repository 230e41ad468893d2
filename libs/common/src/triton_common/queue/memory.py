"""A task queue in this process: for tests, and for a service tried without Redis."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uuid_utils.compat import uuid4

from triton_common.queue.base import TaskQueue, TaskStatus


class MemoryTaskQueue(TaskQueue):
    """Keeps tasks in memory, and runs those that have a registered function, each in a thread, in the order sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str, Mapping[str, Any]]] = []
        """(queue, task, task id, payload) of everything ever sent."""
        self._functions: dict[str, Callable[..., Any]] = {}
        self._status: dict[str, TaskStatus] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def register(self, task: str, function: Callable[..., Any]) -> None:
        """Run `function(**payload)` for each task of this name sent from now on."""
        self._functions[task] = function

    async def enqueue_many(
        self, task: str, payloads: Sequence[tuple[str | None, Mapping[str, Any]]], *, queue: str
    ) -> list[str]:
        """Never fails."""
        ids = [task_id or str(uuid4()) for task_id, _ in payloads]
        for task_id, (_, payload) in zip(ids, payloads, strict=True):
            self.sent.append((queue, task, task_id, payload))
            self._status[task_id] = TaskStatus.PENDING
            if task in self._functions:
                running = asyncio.create_task(self._run(task_id, self._functions[task], payload))
                self._running.add(running)
                running.add_done_callback(self._running.discard)
        return ids

    async def _run(self, task_id: str, function: Callable[..., Any], payload: Mapping[str, Any]) -> None:
        async with self._turn:
            if self._status[task_id] is TaskStatus.CANCELLED:
                return
            self._status[task_id] = TaskStatus.PROCESSING
            try:
                await asyncio.to_thread(function, **payload)
            except Exception:  # noqa: BLE001  a task may raise anything; its status says so
                self._status[task_id] = TaskStatus.FAILED
            else:
                self._status[task_id] = TaskStatus.COMPLETED

    async def status(self, task_id: str) -> TaskStatus:
        """Exact."""
        return self._status.get(task_id, TaskStatus.PENDING)

    async def cancel(self, task_id: str) -> None:
        """Exact."""
        if self._status.get(task_id, TaskStatus.PENDING) is TaskStatus.PENDING:
            self._status[task_id] = TaskStatus.CANCELLED

    async def ping(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Wait for what runs."""
        await asyncio.gather(*self._running)
