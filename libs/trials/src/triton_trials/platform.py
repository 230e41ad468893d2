"""The job engine as processes: Postgres and Redis, jobs-service any number of times, any number of workers.

Parts are started, signalled and stopped one by one, which is what a supervisor would not let us do.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import SIGCONT, SIGTERM, Signals
from typing import Final, Self

from triton_common import embedded
from triton_common.embedded import Postgres, Redis
from triton_common.testing import WORKSPACE, free_port
from triton_trials.issuer import Issuer
from triton_trials.messages import Messages
from triton_trials.proxy import Proxy

START: Final = 60.0  # seconds
GRACE: Final = 5  # seconds that jobs-service gives its open requests when it stops
SERVICE: Final = "jobs"
WORKER: Final = "worker"


class PartFailed(Exception):
    """A process did not start, or did not end, in time."""


class Part:
    """One process. Start it from the main thread alone: the kernel ends it with the thread that did."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        logs: Path,
        check: Callable[[], object],
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], int | None] = lambda: None,
        stop_signal: Signals = SIGTERM,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self._folder = folder
        self._command = command
        self.environment = dict(environment or {})
        self._log = logs / f"{name}.log"
        self._check = check
        self._prepare = prepare
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of its main process."""
        assert self._process is not None  # it was started
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Start it, and do not wait."""
        user = self._prepare()
        environment = {**os.environ, **self.environment} if self.environment else None
        self._process = embedded.spawn(
            self._command,
            log=self._log,
            environment=environment,
            folder=self._folder,
            user=user,
            stop_signal=self._stop_signal,
        )

    async def ready(self) -> None:
        """Return once it answers. Raises PartFailed with the end of its log."""
        deadline = time.monotonic() + START
        while True:
            try:
                await asyncio.to_thread(self._check)
            except Exception as error:  # whatever a client says of a server that is not there yet
                if not self.runs or time.monotonic() > deadline:
                    raise PartFailed(f"{self.name} did not start: {error}\n{embedded.tail(self._log)}") from error
            else:
                return
            await asyncio.sleep(0.05)

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self.spawn()
        await self.ready()

    def tell(self, number: Signals) -> None:
        """To its main process alone."""
        assert self._process is not None  # it was started
        self._process.send_signal(number)

    async def ended(self, *, within: float = 30.0) -> float:
        """How long it still ran. Raises PartFailed when it does not end."""
        began = time.monotonic()
        while self.runs:
            if time.monotonic() > began + within:
                raise PartFailed(f"{self.name} did not end within {within:.0f} s\n{embedded.tail(self._log)}")
            await asyncio.sleep(0.02)
        self.kill()
        return time.monotonic() - began

    async def stop(self, number: Signals | None = None) -> float:
        """Ask it to end and wait until it has; how long that took."""
        self.tell(number or self._stop_signal)
        return await self.ended()

    def kill(self) -> None:
        """End it and what it started, at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(SIGCONT)  # else one that is stopped would not be reaped
            embedded.kill_group(self._process)


class Platform:
    """As a context: everything runs, under `folder`, until the context ends. Settings are environment variables."""

    def __init__(
        self,
        folder: Path,
        *,
        services: int = 1,
        workers: int = 1,
        threads: int = 8,
        settings: Mapping[str, str] | None = None,
        worker_module: str = "triton_trials.worker",
    ) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.effects = folder / "effects"
        self.settings = dict(settings or {})
        self._threads = threads
        self._worker_module = worker_module
        self._counts = services, workers
        self._server = Postgres(folder / "postgres", port=free_port())
        self._broker = Redis(folder / "redis", port=free_port())
        self.messages = Messages(self._broker.url)
        self.issuer = Issuer()
        self.postgres = self._part("postgres", self._server)
        self.redis = self._part("redis", self._broker)
        self.services: list[Part] = []
        self.workers: list[Part] = []
        self._ports: dict[str, int] = {}
        self.proxy = Proxy(self.addresses)
        self._exits = AsyncExitStack()

    @property
    def database_url(self) -> str:
        """Of jobs-service's database."""
        return self._server.url("jobs")

    @property
    def redis_url(self) -> str:
        """Of the queue."""
        return self._broker.url

    @property
    def redis_address(self) -> tuple[str, int]:
        """For a proxy in front of it."""
        return "127.0.0.1", self._broker.port

    def redis_url_at(self, port: int) -> str:
        """The queue's URL through a proxy."""
        return self.redis_url.replace(f":{self._broker.port}/", f":{port}/")

    def forget_messages(self) -> None:
        """Delete what a Redis that is down has written down."""
        for file in self._broker.data.glob("appendonly*"):
            file.unlink()

    def address(self, service: Part) -> tuple[str, int]:
        """Where a jobs-service listens."""
        return "127.0.0.1", self._ports[service.name]

    def addresses(self) -> list[tuple[str, int]]:
        """Where they all do."""
        return [self.address(service) for service in self.services]

    async def __aenter__(self) -> Self:
        """Start all parts. A failure leaves nothing running."""
        async with AsyncExitStack() as exits:
            exits.enter_context(self.issuer)
            await exits.enter_async_context(self.proxy)
            exits.callback(self._end)
            self.postgres.spawn()
            self.redis.spawn()
            await asyncio.gather(self.postgres.ready(), self.redis.ready())
            self._server.create_databases(["jobs"])
            await self.migrate()
            for _ in range(self._counts[0]):
                self.add_service()
            for _ in range(self._counts[1]):
                self.add_worker()
            await asyncio.gather(*(part.ready() for part in (*self.services, *self.workers)))
            self._exits = exits.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all, the workers first."""
        await self._exits.aclose()

    def _end(self) -> None:
        for part in (*self.workers, *self.services, self.redis, self.postgres):
            part.kill()

    async def migrate(self) -> None:
        """Bring the database to jobs-service's present schema."""
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=WORKSPACE / "services" / "jobs-service",
            env={**os.environ, "DATABASE_URL": self.database_url},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PartFailed(f"migrations failed\n{done.stderr}")

    def add_service(self, **settings: str) -> Part:
        """One more jobs-service; it is not ready yet."""
        name, port = f"{SERVICE}-{len(self.services) + 1}", free_port()
        self._ports[name] = port
        part = Part(
            name,
            [
                *(sys.executable, "-m", "uvicorn", "--factory", "jobs_service.main:build"),
                *("--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--http", "httptools"),
                *("--no-access-log", "--timeout-graceful-shutdown", str(GRACE)),
            ],
            logs=self.logs,
            check=lambda: get(port, "/health/ready"),
            environment={
                **self._common(),
                "DATABASE_URL": self.database_url,
                "TASK_QUEUE_URL": self.redis_url,
                **self.settings,
                **settings,
            },
        )
        self.services.append(part)
        part.spawn()
        return part

    def add_worker(self, **settings: str) -> Part:
        """One more worker; it is not ready yet."""
        name, port = f"{WORKER}-{len(self.workers) + 1}", free_port()
        part = Part(
            name,
            [
                *(sys.executable, "-m", "celery", "--quiet", "-A", self._worker_module, "worker"),
                *("--concurrency", str(self._threads), "-Q", "agent-runner", "-n", f"{name}@%h"),
                *("--without-gossip", "--without-mingle"),
            ],
            logs=self.logs,
            check=lambda: get(port, "/metrics"),
            environment={
                **self._common(),
                "TASK_QUEUE_URL": self.redis_url,
                "TRITON_JOBS_URL": f"http://127.0.0.1:{self.proxy.port}",
                "AGENT_CLIENT_SECRET": "nobody-asks-for-it",
                "AGENT_METRICS_PORT": str(port),
                "TRIALS_EFFECTS": str(self.effects),
                **self.settings,
                **settings,
            },
        )
        self.workers.append(part)
        part.spawn()
        return part

    def _common(self) -> dict[str, str]:
        return {"PYTHONUNBUFFERED": "1", "AGNO_TELEMETRY": "false", "TRITON_AUTH_URL": self.issuer.url}

    def _part(self, name: str, server: Postgres | Redis) -> Part:
        return Part(
            name,
            server.command,
            logs=self.logs,
            check=server.check,
            prepare=server.prepare,
            stop_signal=server.stop_signal,
            folder=server.data,
        )


def get(port: int, path: str) -> bytes:
    """The body of a 200 from one of our processes. Raises OSError otherwise."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except HTTPException as error:
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise ConnectionError(f"{path} answers {answer.status}")
    return body
