"""The table of parts: what the stack of this machine is made of, on which port, with which environment.

Ports are one block of ten from --port: +0 gateway, +1 auth, +2 jobs, +3 analytics, +4 agent-runner, +5 console,
+6 redis, +7 postgres, +8 the gateway's own ping and metrics, +9 the agent worker's metrics. AgentOS, which is started
on demand, has a port of its own.
"""

import asyncio
import hashlib
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from triton_cli.stack import Part
from triton_cli.state import ADMIN_EMAIL, CHECKOUT, CommandFailed, Secrets, State
from triton_common.embedded import Postgres, Redis

DATABASES: Final = ("auth", "jobs", "agents")
WORKER_THREADS: Final = 4  # more would ask analytics-service for more reports at once than it queues
CHECK_TIMEOUT: Final = 5.0  # seconds
GRACE: Final = 5  # seconds that a service gives its open requests when it stops

SERVERS, SERVICES, WORKERS, GATEWAY = range(4)


def parts_of(state: State, port: int, *, secrets: Secrets, agentos: int | None = None) -> list[Part]:
    """All parts, the gateway at `port`, and AgentOS at `agentos`, if it is wanted.

    Raises CommandFailed or ServerNotStarted when one is not installed.
    """
    postgres = Postgres(state.postgres, port=port + 7, password=secrets.postgres_password)
    redis = Redis(state.redis, port=port + 6, password=secrets.redis_password)
    urls = {
        f"TRITON_{name}_URL": f"http://127.0.0.1:{port + offset}"
        for offset, name in enumerate(("AUTH", "JOBS", "ANALYTICS", "AGENTS", "CONSOLE"), start=1)
    }
    common = (
        os.environ
        | urls
        | {
            "REDIS_URL": redis.url,
            "TRITON_AUDIT_SPOOL": str(state.audit),
            "PYTHONUNBUFFERED": "1",
            "AGNO_TELEMETRY": "false",
        }
    )
    agent = common | {
        "TASK_QUEUE_URL": redis.url,
        "DATABASE_URL": postgres.url("agents"),
        "AGENT_CLIENT_ID": "agent-runner",
        "AGENT_CLIENT_SECRET": secrets.agent_client_secret,
        "AGENT_METRICS_PORT": str(port + 9),
    }

    async def postgres_ready() -> None:
        await asyncio.to_thread(postgres.check)
        await asyncio.to_thread(postgres.create_databases, DATABASES)

    async def redis_ready() -> None:
        await asyncio.to_thread(redis.check)

    return [
        Part(
            name="postgres",
            layer=SERVERS,
            command=postgres.command,
            ready=postgres_ready,
            folder=state.folder,
            ports=[port + 7],
            stop_signal=postgres.stop_signal,
            prepare=postgres.prepare,
        ),
        Part(
            name="redis",
            layer=SERVERS,
            command=redis.command,
            ready=redis_ready,
            ports=[port + 6],
            stop_signal=redis.stop_signal,
            prepare=redis.prepare,
        ),
        _migrations("auth", "auth-service", state, common | {"DATABASE_URL": postgres.url("auth")}),
        _migrations("jobs", "jobs-service", state, common | {"DATABASE_URL": postgres.url("jobs")}),
        _migrations("agents", "agent-runner", state, common | {"DATABASE_URL": postgres.url("agents")}),
        _service(
            "auth",
            "auth_service",
            port + 1,
            common
            | {
                "DATABASE_URL": postgres.url("auth"),
                "AUTH_BOOTSTRAP_EMAIL": ADMIN_EMAIL,
                "AUTH_BOOTSTRAP_PASSWORD": secrets.admin_password,
                "AUTH_KEY_SECRET": secrets.key_secret,
                "AUTH_AGENT_CLIENT_SECRET": secrets.agent_client_secret,
            },
            after=["auth-migrations"],
        ),
        _service(
            "jobs",
            "jobs_service",
            port + 2,
            common
            | {
                "DATABASE_URL": postgres.url("jobs"),
                "TASK_QUEUE_URL": redis.url,
                "JOBS_ENCRYPTION_KEYS": secrets.jobs_encryption_key,
            },
            after=["jobs-migrations"],
        ),
        _service(
            "analytics",
            "analytics_service",
            port + 3,
            common
            | {
                "CLICKHOUSE_URL": f"chdb://{state.clickhouse}",
                "ANALYTICS_MEMBER_KEY": secrets.member_key,
                "ANALYTICS_SPOOL_DIR": str(state.spool),
            },
        ),
        _service("agent-runner", "agent_runner", port + 4, agent, after=["agents-migrations"]),
        _service("console", "console", port + 5, common),
        *(
            [_service("agentos", "agent_runner", agentos, agent, app="agentos", after=["agents-migrations"])]
            if agentos
            else []
        ),
        Part(
            name="agent-worker",
            layer=WORKERS,
            after=["redis", "agents-migrations"],
            command=[
                *(sys.executable, "-m", "celery", "--quiet", "-A", "agent_runner.worker", "worker"),
                *("--concurrency", str(WORKER_THREADS), "-Q", "agent-runner"),
                *(
                    "--without-gossip",
                    "--without-mingle",
                ),  # what workers tell one another; Flower hears their heartbeat
            ],
            ready=answers(f"http://127.0.0.1:{port + 9}/metrics"),
            environment=agent,
            folder=state.folder,
            ports=[port + 9],
        ),
        Part(
            name="gateway",
            layer=GATEWAY,
            after=["console"],
            command=[traefik_program()],
            ready=answers(f"http://127.0.0.1:{port + 8}/ping", f"http://127.0.0.1:{port}/"),
            environment=urls
            | {name: value for name, value in os.environ.items() if name == "TRITON_ANSWER_TIMEOUT"}
            | gateway_settings()
            | {
                "TRAEFIK_ENTRYPOINTS_WEB_ADDRESS": f"127.0.0.1:{port}",
                "TRAEFIK_ENTRYPOINTS_INTERNAL_ADDRESS": f"127.0.0.1:{port + 8}",
                "TRAEFIK_PROVIDERS_FILE_FILENAME": str(CHECKOUT / "infra" / "traefik" / "dynamic.yml"),
            },
            folder=state.folder,
            ports=[port, port + 8],
        ),
    ]


def _migrations(name: str, service: str, state: State, environment: Mapping[str, str]) -> Part:
    folder = CHECKOUT / "services" / service
    digest = hashlib.sha256()
    for file in sorted((folder / "migrations").rglob("*.py")):
        digest.update(file.name.encode() + file.read_bytes())
    return Part(
        name=f"{name}-migrations",
        layer=SERVICES,
        after=["postgres"],
        command=[sys.executable, "-m", "alembic", "upgrade", "head"],
        environment=environment,
        folder=folder,
        stamp=(state.stamp(f"{name}-migrations"), digest.hexdigest()),
    )


def _service(
    name: str,
    package: str,
    port: int,
    environment: Mapping[str, str],
    *,
    after: Sequence[str] = (),
    app: str = "main",
) -> Part:
    return Part(
        name=name,
        layer=SERVICES,
        after=after,
        command=[
            *(sys.executable, "-m", "uvicorn", "--factory", f"{package}.{app}:build"),
            *("--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--http", "httptools"),
            *("--no-access-log", "--timeout-graceful-shutdown", str(GRACE)),
        ],
        ready=answers(f"http://127.0.0.1:{port}/health/ready"),
        environment=environment,
        ports=[port],
    )


def answers(*urls: str) -> Callable[[], Awaitable[None]]:
    """Ready when every URL answers 200."""

    async def ready() -> None:
        for url in urls:
            await asyncio.to_thread(_get, url)

    return ready


def _get(url: str) -> None:
    """As little as can be: it is asked of every part several times a second, while all of them want the processor."""
    _, _, host, path = url.split("/", 3)
    connection = HTTPConnection(host, timeout=CHECK_TIMEOUT)
    try:
        connection.request("GET", f"/{path}")
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != HTTPStatus.OK:
        raise ConnectionError(f"{url} answers {status}")


def traefik_program() -> Path:
    """Traefik as its wheel installs it, beside our Python. Raises CommandFailed."""
    found = shutil.which("traefik", path=str(Path(sys.executable).parent)) or shutil.which("traefik")
    if found is None:
        raise CommandFailed("Traefik is not installed: run `uv sync`.")
    return Path(found)


def gateway_settings() -> dict[str, str]:
    """The lines of infra/traefik/static.env."""
    lines = (CHECKOUT / "infra" / "traefik" / "static.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
