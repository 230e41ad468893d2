"""Celery on Redis: the settings that every Triton worker and sender shares, its thread pool, and the sender."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from celery import Celery
from celery.app.amqp import AMQP
from celery.concurrency.thread import ApplyResult, TaskPool
from kombu.asynchronous.hub import Hub
from kombu.connection import Connection
from kombu.exceptions import KombuError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from uuid_utils.compat import uuid4

from triton_common.queue.base import PRIORITIES, QueueUnavailable, TaskQueue, TaskStatus

# seconds; without one, a worker behind a half-open connection stays deaf for ever (measured: 370 s)
SOCKET_TIMEOUT: Final = 5
SEND_TIMEOUT: Final = 2.0  # seconds; the sender waits no longer for a frozen Redis, and the sweep sends again
LANE_SEPARATOR: Final = "\x06\x16"  # kombu's own default
INCARNATION: Final = "triton:incarnation"

_STATUS: Final = {
    "PENDING": TaskStatus.PENDING,
    "RECEIVED": TaskStatus.PENDING,
    "STARTED": TaskStatus.PROCESSING,
    "RETRY": TaskStatus.PROCESSING,
    "SUCCESS": TaskStatus.COMPLETED,
    "FAILURE": TaskStatus.FAILED,
    "REVOKED": TaskStatus.CANCELLED,
}


def celery_app(url: str, *, name: str) -> Celery:
    """A Celery app with Triton's settings; `url` carries messages and the results of the few tasks that have one."""
    app = Celery(name, broker=url, backend=url, set_as_current=False, amqp=_Amqp)
    app.conf.update(
        # --- messages: JSON alone, since pickle would run what a stranger wrote into Redis
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        # --- results: a job's is its row, and one in Redis would be a second truth at 22 % of the enqueue rate. A task
        # that returns something (ping) says ignore_result=False; its result is gone after an hour
        task_ignore_result=True,
        result_expires=3600,
        task_track_started=True,  # of those tasks: that one is processing, not pending
        # --- workers
        worker_pool=f"{__name__}:Threads",
        worker_disable_prefetch=True,  # messages wait in Redis, where more urgent ones overtake them, for a free thread
        worker_prefetch_multiplier=1,  # and no default of four a thread, should Celery not know the transport for Redis
        worker_hijack_root_logger=False,  # our logging is set up by ourselves
        worker_redirect_stdouts=False,  # same
        worker_send_task_events=False,  # half the drain rate (measured); Flower turns them on while it runs
        task_send_sent_event=False,  # the sender writes to Redis itself
        # --- connections: a worker outlives any failure of Redis
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # for ever
        broker_transport_options={
            # Rows and leases recover what Redis loses; emulated acknowledgements would only add their own failures (a
            # message in `unacked` waits an hour) and cost 3.7 x the rate.
            "ack_emulation": False,
            "priority_steps": list(PRIORITIES),  # a list in Redis for each; one BRPOP asks all of them, in this order
            "sep": LANE_SEPARATOR,
            # kombu's defaults are no timeouts at all: deaf for ever behind a half-open connection
            "socket_timeout": SOCKET_TIMEOUT,
            "socket_connect_timeout": SOCKET_TIMEOUT,
            "socket_keepalive": True,
            "health_check_interval": SOCKET_TIMEOUT,  # a BRPOP without an answer is given up after 6 to 11 seconds
        },
        # --- the same for results
        redis_socket_timeout=SOCKET_TIMEOUT,
        redis_socket_connect_timeout=SOCKET_TIMEOUT,
        redis_backend_health_check_interval=SOCKET_TIMEOUT,
    )
    return app


class _Connection(Connection):
    """A worker's connection, which looks for a Redis that went away after 1, 2, 3, 3, … seconds.

    Celery has no setting for it, and kombu's pauses grow to half a minute, in which Redis would be back and no job run.
    """

    def get_transport_cls(self) -> type:
        """For Redis, the transport that tells when it was answered."""
        found: type = super().get_transport_cls()  # type: ignore[no-untyped-call]
        if getattr(found, "driver_type", "") != "redis":
            return found
        from triton_common.queue.heard import Transport  # noqa: PLC0415  senders do without kombu's transport

        return Transport

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        pauses = {"interval_start": 1, "interval_step": 1, "interval_max": 3}
        return super().ensure_connection(*args, **pauses | options)  # type: ignore[no-untyped-call]


class _Amqp(AMQP):  # type: ignore[misc]  # celery has no types
    """Celery's way to connections."""

    Connection = _Connection


class Threads(TaskPool):  # type: ignore[misc]  # celery has no types
    """Celery's pool of threads, which wakes the worker's event loop when a thread has become free.

    Without prefetching, the loop asks Redis for a message only then; it would notice by its next timer, up to a second
    later (measured with 8 threads and tasks of 50 ms: 10 tasks/s, woken 150).
    """

    _hub: Hub | None = None

    def register_with_event_loop(self, loop: Hub) -> None:
        """Celery calls it with each connection that it opens."""
        self._hub = loop

    def on_apply(self, *args: Any, **options: Any) -> ApplyResult:
        """Run a task."""
        running = super().on_apply(*args, **options)
        running.f.add_done_callback(self._wake)
        return running

    def _wake(self, _: object) -> None:
        if self._hub is not None:
            self._hub.call_soon(lambda: None)  # type: ignore[no-untyped-call]


def lane(queue: str, priority: int) -> str:
    """The list in Redis that holds a queue's messages of this priority, as kombu's Channel._q_for_pri names it."""
    return f"{queue}{LANE_SEPARATOR}{priority}" if priority else queue


class CeleryTaskQueue(TaskQueue):
    """Sends to Celery workers: every message of a call in one LPUSH, 16 to 23 x the rate of `delay()`."""

    def __init__(self, url: str) -> None:
        self._app = celery_app(url, name="triton")
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=SEND_TIMEOUT,
            socket_connect_timeout=SEND_TIMEOUT,
            retry=Retry(NoBackoff(), 1),  # once, for a connection that Redis' restart has closed
        )

    async def _push(
        self, task: str, tasks: Sequence[tuple[str, Mapping[str, Any]]], *, queue: str, priority: int
    ) -> None:
        """One LPUSH onto the lane's list, which is what Celery's workers pop from."""
        messages = [self._message(task, task_id, payload, queue=queue, priority=priority) for task_id, payload in tasks]
        async with _bounded():
            await self._redis.lpush(lane(queue, priority), *messages)

    def _message(self, task: str, task_id: str, payload: Mapping[str, Any], *, queue: str, priority: int) -> str:
        """A message as kombu's Redis transport writes it (kombu.transport.virtual: prepare_message, basic_publish)."""
        shown = repr(
            {name: value for name, value in payload.items() if name.endswith("_id")}
        )  # in Flower, for everyone
        built = self._app.amqp.as_task_v2(
            task_id,
            task,
            args=(),
            kwargs=dict(payload),
            argsrepr="()",
            kwargsrepr=shown,
            ignore_result=None,  # as the task has it; Celery's default is a result of each
        )
        body = json.dumps(built.body, separators=(",", ":")).encode()
        properties = dict(built.properties) | {
            "body_encoding": "base64",
            "delivery_mode": 2,
            "delivery_tag": task_id,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": priority,
        }
        return json.dumps(
            {
                "body": base64.b64encode(body).decode(),
                "content-encoding": "utf-8",
                "content-type": "application/json",
                "headers": dict(built.headers),
                "properties": properties,
            },
            separators=(",", ":"),
        )

    async def status(self, task_id: str) -> TaskStatus:
        """From the result backend, where tasks without a result never appear."""
        async with _bounded():
            meta = await self._redis.get(self._app.backend.get_key_for_task(task_id))
        return _STATUS.get(json.loads(meta)["status"], TaskStatus.PENDING) if meta else TaskStatus.PENDING

    async def cancel(self, task_id: str) -> None:
        """By Celery's revoke, which lives in the memory of workers that are up: a job's own state decides."""
        async with _bounded():
            await asyncio.to_thread(self._app.control.revoke, task_id)

    async def ping(self) -> None:
        """Redis answers."""
        async with _bounded():
            await self._redis.ping()

    async def incarnation(self) -> str:
        """Redis' run id, for a restart may bring back an old snapshot, and a key that goes with all others."""
        async with _bounded(), self._redis.pipeline() as together:
            together.set(INCARNATION, str(uuid4()), nx=True)
            together.get(INCARNATION)
            together.info("server")
            _, token, server = await together.execute()
        return f"{server['run_id']}:{token.decode()}"

    async def waiting(self, queue: str) -> int:
        """The length of all the queue's lanes."""
        async with _bounded(), self._redis.pipeline() as together:
            for priority in PRIORITIES:
                together.llen(lane(queue, priority))
            return sum(await together.execute())

    async def close(self) -> None:
        """Close the connections of both clients."""
        await self._redis.aclose()
        await asyncio.to_thread(self._app.close)


@asynccontextmanager
async def _bounded() -> AsyncIterator[None]:
    """Wait for Redis no longer than for two tries; its errors are QueueUnavailable."""
    try:
        async with asyncio.timeout(2 * SEND_TIMEOUT):
            yield
    except (RedisError, KombuError, OSError, TimeoutError) as error:
        raise QueueUnavailable(retry_after=1) from error
