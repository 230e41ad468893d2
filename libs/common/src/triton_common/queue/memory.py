"""A task queue in this process: for tests, and for a service tried without Redis."""

import asyncio
import heapq
import itertools
import json
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from uuid_utils.compat import uuid4

from triton_common.queue.base import TaskQueue, TaskStatus

KEPT: Final = 10_000  # tasks that are remembered


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
        self.sent: deque[Sent] = deque(maxlen=KEPT)
        """What was sent, the oldest first."""
        self._functions: dict[str, Callable[..., Any]] = {}
        self._status: OrderedDict[str, TaskStatus] = OrderedDict()  # of those that run here
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
            if task in self._functions:
                self._note(task_id, TaskStatus.PENDING)
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
            if await self.status(task_id) is TaskStatus.CANCELLED:
                return
            self._note(task_id, TaskStatus.PROCESSING)
            try:
                await asyncio.to_thread(function, **payload)
            except Exception:  # noqa: BLE001  a task may raise anything; its status says so
                self._note(task_id, TaskStatus.FAILED)
            else:
                self._note(task_id, TaskStatus.COMPLETED)

    def _note(self, task_id: str, status: TaskStatus) -> None:
        self._status[task_id] = status
        while len(self._status) > KEPT:
            self._status.popitem(last=False)

    async def status(self, task_id: str) -> TaskStatus:
        """Exact, for the last KEPT tasks."""
        return self._status.get(task_id, TaskStatus.PENDING)

    async def cancel(self, task_id: str) -> None:
        """Exact."""
        if await self.status(task_id) is TaskStatus.PENDING:
            self._note(task_id, TaskStatus.CANCELLED)

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
