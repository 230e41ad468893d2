"""TaskQueue: how a service hands work to workers, whatever carries the messages."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self

from uuid_utils.compat import uuid4

from triton_common.errors import Unavailable
from triton_common.messages import Message
from triton_common.telemetry import sending

PRIORITIES: Final = range(10)  # 0 goes first


class QueueUnavailable(Unavailable):
    """The task queue does not answer; try again."""


class TaskStatus(StrEnum):
    """What is known of a task. One that nobody has seen is pending: a queue may not know better."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskQueue(ABC):
    """Carries named tasks with JSON payloads to workers, at most once: whoever needs more keeps a row and sends again.

    A free worker takes the task of the lowest priority number, 0 to 9, and of those the one sent first. Every method
    raises QueueUnavailable, in bounded time, when the queue cannot be reached.
    """

    async def enqueue(
        self, task: str, payload: Mapping[str, Any], *, queue: str, task_id: str | None = None, priority: int = 0
    ) -> str:
        """Send one task; answers its id."""
        return (await self.enqueue_many(task, [(task_id, payload)], queue=queue, priority=priority))[0]

    async def enqueue_many(
        self, task: str, payloads: Sequence[tuple[str | None, Mapping[str, Any]]], *, queue: str, priority: int = 0
    ) -> list[str]:
        """Send (task id or None, payload) pairs in one round trip, all or none; answers their ids in order.

        Raises ValueError for a priority that is none, TypeError for a payload that is not JSON.
        """
        if priority not in PRIORITIES:
            raise ValueError(f"a priority is a number from 0 to {PRIORITIES[-1]}, not {priority}")
        tasks = [(task_id or str(uuid4()), payload) for task_id, payload in payloads]
        if tasks:
            await self._push(task, tasks, queue=queue, priority=priority)
        return [task_id for task_id, _ in tasks]

    @abstractmethod
    async def _push(
        self, task: str, tasks: Sequence[tuple[str, Mapping[str, Any]]], *, queue: str, priority: int
    ) -> None:
        """Send (task id, payload) pairs, at least one, as enqueue_many promises."""

    @abstractmethod
    async def status(self, task_id: str) -> TaskStatus:
        """What is known of a task."""

    @abstractmethod
    async def cancel(self, task_id: str) -> None:
        """Keep a task that has not started from starting. One that runs goes on."""

    @abstractmethod
    async def ping(self) -> None:
        """Return when the queue can be reached."""

    @abstractmethod
    async def incarnation(self) -> str:
        """A token that changes when the queue may have lost what it held; whoever sees another one sends again."""

    @abstractmethod
    async def waiting(self, queue: str) -> int:
        """How many tasks wait in a queue for a worker."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of all connections."""

    async def send(self, messages: Sequence[Message], *, priority: int = 0) -> list[str]:
        """Send messages of one kind in one round trip; a message is its task's payload."""
        if not messages:
            return []
        first = type(messages[0])
        payloads = [(None, message.model_dump(mode="json")) for message in messages]
        with sending(first.queue, (message.traceparent for message in messages)):
            return await self.enqueue_many(first.name, payloads, queue=first.queue, priority=priority)

    async def __aenter__(self) -> Self:
        """Nothing to open: a dead queue must not stop a start."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()
