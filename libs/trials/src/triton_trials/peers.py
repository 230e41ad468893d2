"""Those that are compared: each takes jobs without work, runs them, and has a record of when each was done."""

import asyncio
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from itertools import cycle
from typing import Any, Final, Self
from uuid import UUID

import psutil
import psycopg
from redis.asyncio import Redis

from triton_trials.platform import Part, Platform
from triton_trials.trial import Trial
from triton_trials.wire import Wire, closed_loop, encode

CONNECTIONS: Final = 16  # that submit at once, where submitting is HTTP or async
LOOK: Final = 0.02  # seconds between two looks whether all is done
PATIENCE: Final = 120.0


class Peer(ABC):
    """As a context it takes submissions; work begins with `start_workers`."""

    name: str

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.parts: list[Part] = []
        self.ids: list[Hashable] = []

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Begin with nothing queued and nothing done."""

    async def __aexit__(self, *_: object) -> None:
        """End all its processes."""
        for part in self.parts:
            part.kill()

    @abstractmethod
    async def submit(self, count: int) -> None:
        """As fast as it takes them."""

    @abstractmethod
    async def one(self) -> Hashable:
        """Submit one; its id."""

    @abstractmethod
    async def start_workers(self) -> None:
        """Return when they are there."""

    @abstractmethod
    async def left(self) -> int:
        """How many jobs are not done; cheap to ask."""

    @abstractmethod
    async def done(self) -> dict[Hashable, float]:
        """When each job was done, in Unix time, by the peer's own record."""

    async def all_done(self) -> dict[Hashable, float]:
        """Wait for all jobs; when each was done."""
        deadline = time.monotonic() + PATIENCE
        while await self.left() or len(done := await self.done()) < len(self.ids):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: not all jobs were done within {PATIENCE:.0f} s")
            await asyncio.sleep(LOOK)
        return done

    def memory(self) -> dict[str, int]:
        """Bytes of each of its processes with its children, what they share counted once (PSS)."""
        found = {}
        for part in self.parts:
            process = psutil.Process(part.pid)
            found[part.name] = sum(_own(one) for one in (process, *process.children(recursive=True)))
        return found

    def processor_time(self) -> dict[str, float]:
        """Seconds that each of its processes, and the servers, have computed so far."""
        found = {}
        for part in (*self.parts, self.platform.postgres, self.platform.redis):
            process = psutil.Process(part.pid)
            times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
            found[part.name] = sum(one.user + one.system for one in times)
        return found

    def _part(self, name: str, command: list[str], environment: Mapping[str, str], ready: str) -> Part:
        """A worker that says in its log when it is ready."""
        log = self.platform.logs / f"{name}.log"
        log.unlink(missing_ok=True)

        def check() -> None:
            if ready not in log.read_text():
                raise ConnectionError("not ready")

        part = Part(name, command, logs=self.platform.logs, check=check, environment=environment)
        self.parts.append(part)
        return part


def _own(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.rss))  # macOS has no PSS


class RawCelery(Peer):
    """Celery on Redis, prefork -c 2, results in Redis, everything else as it comes."""

    name = "Celery"

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self._url = platform.redis_url.removesuffix("/0") + "/1"
        self._redis: Redis = Redis.from_url(self._url)
        from triton_trials import raw_celery  # noqa: PLC0415  it reads nothing before it is asked

        raw_celery.app.conf.update(broker_url=self._url, result_backend=self._url)
        self._task = raw_celery.nothing

    async def __aenter__(self) -> Self:
        """Empty its part of Redis."""
        await self._redis.flushdb()
        return self

    async def __aexit__(self, *_: object) -> None:
        """And close."""
        await super().__aexit__()
        await self._redis.aclose()

    async def submit(self, count: int) -> None:
        """One `delay()` after the other, as a program would."""
        self.ids += await asyncio.to_thread(lambda: [self._task.delay().id for _ in range(count)])

    async def one(self) -> Hashable:
        """`delay()`."""
        self.ids.append(self._task.delay().id)
        return self.ids[-1]

    async def start_workers(self) -> None:
        """Two processes."""
        command = [sys.executable, "-m", "celery", "-A", "triton_trials.raw_celery", "worker", "-c", "2", "-l", "info"]
        await self._part("celery", command, {"RAW_REDIS_URL": self._url}, "ready.").start()

    async def left(self) -> int:
        """In the queue, or with a worker."""
        return int(await self._redis.llen("celery")) + int(await self._redis.hlen("unacked"))

    async def done(self) -> dict[Hashable, float]:
        """From the results."""
        found: list[Any] = []
        for start in range(0, len(self.ids), 1000):
            found += await self._redis.mget([f"celery-task-meta-{one}" for one in self.ids[start : start + 1000]])
        results = {one: json.loads(text) for one, text in zip(self.ids, found, strict=True) if text}
        return {one: datetime.fromisoformat(result["date_done"]).timestamp() for one, result in results.items()}


class Procrastinate(Peer):
    """procrastinate, concurrency 20, in a database of its own on the same server."""

    name = "procrastinate"

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self._url = platform.database_url.removesuffix("/jobs") + "/procrastinate"
        self._environment = {"RAW_DATABASE_URL": self._url}
        self._exits = AsyncExitStack()
        from procrastinate import PsycopgConnector  # noqa: PLC0415  of the dependency group bench

        from triton_trials import raw_procrastinate  # noqa: PLC0415  same

        self._connector = PsycopgConnector(conninfo=self._url)
        self._app = raw_procrastinate.app
        self._task = raw_procrastinate.nothing

    async def __aenter__(self) -> Self:
        """Make its database anew."""
        await self._do("DROP DATABASE IF EXISTS procrastinate WITH (FORCE)", "postgres")
        await self._do("CREATE DATABASE procrastinate", "postgres")
        app = self._exits.enter_context(self._app.replace_connector(self._connector))
        await self._exits.enter_async_context(app.open_async())
        await app.schema_manager.apply_schema_async()
        return self

    async def __aexit__(self, *_: object) -> None:
        """And close."""
        await super().__aexit__()
        await self._exits.aclose()

    async def _do(self, statement: str, database: str = "procrastinate") -> list[Any]:
        url = self._url.removesuffix("/procrastinate") + f"/{database}"
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            cursor = await connection.execute(statement.encode())
            return await cursor.fetchall() if cursor.description else []

    async def submit(self, count: int) -> None:
        """`defer_async`, several at once."""
        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                await self.one()

        await asyncio.gather(*(some() for _ in range(CONNECTIONS)))

    async def one(self) -> Hashable:
        """`defer_async()`."""
        job_id: int = await self._task.defer_async()
        self.ids.append(job_id)
        return job_id

    async def start_workers(self) -> None:
        """One process of 20 coroutines."""
        command = [
            *(sys.executable, "-m", "procrastinate", "--verbose", "--app", "triton_trials.raw_procrastinate.app"),
            *("worker", "--concurrency", "20"),
        ]
        await self._part("procrastinate", command, self._environment, "Starting worker").start()

    async def left(self) -> int:
        """By the index on the state."""
        [[there]] = await self._do("SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')")
        return int(there)

    async def done(self) -> dict[Hashable, float]:
        """From its events."""
        found = await self._do("SELECT job_id, at FROM procrastinate_events WHERE type = 'succeeded'")
        return {job_id: at.timestamp() for job_id, at in found}


class Triton(Peer):
    """Triton over its public API, everything on: tokens, durable rows, events, a report a job, metrics, logs. Settings
    are the defaults; jobs are of four clients in turn, so that no client's limit is the platform's."""

    name = "Triton"
    settings: Mapping[str, str] = {}
    clients = 4

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        self._trial = Trial("bench", platform)
        self._database: psycopg.AsyncConnection[Any] | None = None
        self._requests: Iterator[bytes] = iter(())
        self._free: list[Wire] = []

    async def __aenter__(self) -> Self:
        """Start jobs-service, and make the client."""
        self._database = await psycopg.AsyncConnection.connect(self.platform.database_url, autocommit=True)
        await self._database.execute("TRUNCATE clients CASCADE")
        await self.platform.messages.flush()
        service = self.platform.add_service(**self.settings)
        self.parts.append(service)
        await service.ready()
        self._requests = cycle([self._trial.request(await self._trial.add_client("0 ms")) for _ in range(self.clients)])
        return self

    async def __aexit__(self, *_: object) -> None:
        """And forget the processes."""
        await super().__aexit__()
        for wire in self._free:
            wire.close()
        assert self._database is not None
        await self._database.close()
        self.platform.services.clear()
        self.platform.workers.clear()

    @property
    def address(self) -> tuple[str, int]:
        """Where jobs-service listens."""
        return self.platform.addresses()[0]

    async def submit(self, count: int) -> None:
        """`POST /api/v1/jobs`, over as many connections."""

        def seen(answer: Any) -> None:
            self.ids.append(UUID(answer.json["id"]))

        load = await closed_loop(
            self.address, lambda: next(self._requests), connections=CONNECTIONS, count=count, seen=seen
        )
        if load.statuses != {202: count}:
            raise RuntimeError(f"POST /jobs answered {load.statuses}")

    async def one(self) -> Hashable:
        """`POST /api/v1/jobs`, over a connection that is free."""
        wire = self._free.pop() if self._free else Wire(*self.address)
        job_id = UUID((await wire.send(next(self._requests))).json["id"])
        self._free.append(wire)
        self.ids.append(job_id)
        return job_id

    async def until_seen(self) -> float:
        """Seconds from a POST to the first GET, one a millisecond, that says completed."""
        began = time.perf_counter()
        job_id = await self.one()
        wire = self._free.pop()
        request = encode("GET", f"/api/v1/jobs/{job_id}", headers=self._trial.headers)
        while (await wire.send(request)).json["status"] != "completed":  # noqa: ASYNC110  a GET is what is measured
            await asyncio.sleep(0.001)
        self._free.append(wire)
        return time.perf_counter() - began

    async def start_workers(self) -> None:
        """As the platform starts them, but straight to jobs-service."""
        url = f"http://127.0.0.1:{self.address[1]}"
        worker = self.platform.add_worker(TRITON_JOBS_URL=url, TRIALS_EFFECTS="", **self.settings)
        self.parts.append(worker)
        await worker.ready()

    async def left(self) -> int:
        """By the index of live jobs."""
        [there] = await self._rows("SELECT count(*) FROM generation_jobs WHERE status IN ('pending', 'processing')")
        return int(there[0])

    async def done(self) -> dict[Hashable, float]:
        """From the rows. Raises RuntimeError when one has failed."""
        found = await self._rows("SELECT id, status, finished_at FROM generation_jobs WHERE finished_at IS NOT NULL")
        if any(status != "completed" for _, status, _ in found):
            raise RuntimeError("not every job was completed")
        return {job_id: at.timestamp() for job_id, _, at in found}

    async def _rows(self, statement: str) -> list[Any]:
        assert self._database is not None
        return await (await self._database.execute(statement.encode())).fetchall()


class TritonOneClient(Triton):
    """The same with one client, which may have 16 jobs in flight."""

    name = "Triton, one client"
    clients = 1


class TritonUnlimited(Triton):
    """With one client, which may have all its jobs in flight at once."""

    name = "Triton, client unlimited"
    clients = 1
    settings: Mapping[str, str] = {"JOBS_CONCURRENT_PER_CLIENT": "100000", "JOBS_MAX_PENDING_PER_CLIENT": "1000000"}
