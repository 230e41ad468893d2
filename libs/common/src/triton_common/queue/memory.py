"""A task queue in this process: for tests, and for a service tried without Redis."""

import asyncio
import heapq
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from uuid_utils.compat import uuid4

from triton_common.queue.base import TaskQueue, TaskStatus


class Sent(NamedTuple):
    """A task as it was sent."""

    queue: str
    task: str
    task_id: str
    payload: Mapping[str, Any]
    priority: int


class MemoryTaskQueue(TaskQueue):
    """Keeps tasks in memory, and runs those that have a registered function one after another, each in a thread."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        """Everything ever sent."""
        self._functions: dict[str, Callable[..., Any]] = {}
        self._status: dict[str, TaskStatus] = {}
        self._waiting: list[tuple[int, int, str, str, Callable[..., Any], Mapping[str, Any]]] = []
        self._number = itertools.count()
        self._incarnation = str(uuid4())
        self._running: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def register(self, task: str, function: Callable[..., Any]) -> None:
        """Run `function(**payload)` for each task of this name sent from now on."""
        self._functions[task] = function

    def lose(self) -> None:
        """Forget every task that waits, as Redis does when it is emptied or starts anew."""
        self._waiting.clear()
        self._incarnation = str(uuid4())

    async def _push(
        self, task: str, tasks: Sequence[tuple[str, Mapping[str, Any]]], *, queue: str, priority: int
    ) -> None:
        """Never fails. A function gets what JSON makes of the payload, as from any other queue."""
        for task_id, payload in [(task_id, json.loads(json.dumps(payload))) for task_id, payload in tasks]:
            self.sent.append(Sent(queue, task, task_id, payload, priority))
            self._status[task_id] = TaskStatus.PENDING
            if task in self._functions:
                waiting = (priority, next(self._number), queue, task_id, self._functions[task], payload)
                heapq.heappush(self._waiting, waiting)
                running = asyncio.create_task(self._run_next())
                self._running.add(running)
                running.add_done_callback(self._running.discard)

    async def _run_next(self) -> None:
        async with self._turn:
            if not self._waiting:
                return
            *_, task_id, function, payload = heapq.heappop(self._waiting)
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

    async def incarnation(self) -> str:
        """Another after `lose()`."""
        return self._incarnation

    async def waiting(self, queue: str) -> int:
        """Of those that will run."""
        return sum(task[2] == queue for task in self._waiting)

    async def close(self) -> None:
        """Wait for what runs."""
        await asyncio.gather(*self._running)
